"""Texts that come and go: times, cursors of lists, parameters, Retry-After."""
