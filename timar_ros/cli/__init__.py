"""The `timar` command: one file a subcommand, found by its name (see `main`)."""
