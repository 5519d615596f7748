"""Taking an upload in."""
