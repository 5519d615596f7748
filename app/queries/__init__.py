"""Reads for the API and the commands."""
