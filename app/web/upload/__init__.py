"""Receives the body of an upload: reading from the socket, parsing, limits."""
