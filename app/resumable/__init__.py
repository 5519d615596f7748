"""Uploads that come in parts, over any number of requests, processes and restarts: the use case behind tus."""
