"""The body of an upload: read from its socket, taken apart, bounded."""
