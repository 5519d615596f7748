"""Media items: id, type, display name, checksum, status and signed links."""
