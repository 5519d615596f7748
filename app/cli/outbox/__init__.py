"""The commands of `flask outbox`."""
