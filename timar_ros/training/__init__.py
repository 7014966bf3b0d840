"""Training: configuration, batches, the objective and the loop (docs/training.md)."""
