"""Decoding a video: its container, its frames sampled by time, and the position where another process continues."""
