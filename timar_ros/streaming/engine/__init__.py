"""From a conversation's history and its current turn to conditioning: three engines."""
