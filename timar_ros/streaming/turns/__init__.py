"""From chunks of audio and tracked motion to turns of a fixed length. No torch here."""
