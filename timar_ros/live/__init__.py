"""The page of a running conversation: its states, its commands and its server."""
