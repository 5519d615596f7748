"""What a detector process gives up before it sees a byte of anybody's media.

Landlock and seccomp are called by way of the C library alone: both are a few system calls, the libraries for them would
be two more things to install, and one of them (libseccomp) is missing on machines that have nothing but Python.
"""
