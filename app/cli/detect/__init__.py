"""The commands of `flask detect`."""
