"""Servers that take files in as others do, each run as a process of its own."""
