"""Measurements over whole data sets: speed, robustness, predictions and their scores."""
