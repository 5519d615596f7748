"""The commands of `flask media`."""
