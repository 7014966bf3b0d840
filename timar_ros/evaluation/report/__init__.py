"""A recorded conversation as one HTML file."""
