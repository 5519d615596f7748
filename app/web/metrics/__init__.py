"""Prometheus collectors, each for one part of the service."""
