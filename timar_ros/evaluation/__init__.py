"""Quality of motion: metrics, comparison of runs, evaluation of recorded live runs, reports."""
