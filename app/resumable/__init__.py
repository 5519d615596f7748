"""Resumable uploads: received in parts, over any number of requests, processes and restarts (used by tus)."""
