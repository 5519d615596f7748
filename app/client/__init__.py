"""A client of this service's own HTTP API, for machines that have files and a bad link: nothing of the service is here.

It knows no database, no settings and no Flask, so that it works on a laptop.
"""
