"""Decodes a video and samples its frames."""
