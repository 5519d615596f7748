"""What shows the service at work: the reference annotations service, the demo and its photos.

Nothing outside this package imports it: the service runs without.
"""
