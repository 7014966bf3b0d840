"""A blind comparison of heads by people: the page, and the analysis of its ratings."""
