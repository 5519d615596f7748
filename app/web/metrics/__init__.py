"""Prometheus collectors, one for each part of the service."""
