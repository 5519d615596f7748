"""Authentication: tokens, keys and client addresses."""
