"""Baselines for TIMAR: DualTalk, and baselines that do not listen."""
