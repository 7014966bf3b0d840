"""The graph of nodes: its description, and how it is launched, supervised and observed."""
