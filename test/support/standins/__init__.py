"""Stand-ins for other packages' interfaces: the same package and message names with the same fields."""
