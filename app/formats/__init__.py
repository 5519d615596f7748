"""Parsing and formatting of timestamps, cursors, parameters and Retry-After."""
