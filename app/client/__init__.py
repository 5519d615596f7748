"""A client of this service's HTTP API, for machines with unreliable links.

It needs no database, settings or Flask, so that it also works on a laptop.
"""
