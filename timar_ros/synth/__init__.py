"""Synthetic two-party conversations to train and test on."""
