"""Decodes one still picture, complete or damaged."""
