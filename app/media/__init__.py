"""What a media item is: its id, type, name, checksum, status and signed links."""
