"""Decoding one still picture, whole or damaged."""
