"""How good the motion is: metrics, comparison of runs, what a bag tells of a live run, reports."""
