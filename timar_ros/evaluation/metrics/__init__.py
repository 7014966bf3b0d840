"""Metrics of motion: the paper's, behaviour in a conversation, and those of a recorded run."""

from timar_ros.evaluation.metrics.paper_metrics import compute_metrics

__all__ = ["compute_metrics"]
