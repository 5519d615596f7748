"""Restricts a detector process before it reads the first byte of a media file.

Landlock and seccomp are called through the C library: each takes a few system calls, a library for them would be one
more package, and libseccomp is missing where only Python is installed.
"""
