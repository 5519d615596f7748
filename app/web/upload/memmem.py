"""Finding a byte string with `memmem` of the C library.

The parser of forms searches every byte for the boundary. `bytes.find` takes four times as long and copies each piece
first; a form is then received at 0.85 of the speed (docs/performance.md).
"""

import ctypes

_memmem = ctypes.CDLL(None).memmem
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]


def find(haystack: memoryview, needle: bytes) -> int:
    """Return the position of the first `needle` in `haystack`, a contiguous view of bytes; -1 if there is none."""
    if haystack.readonly or not haystack:  # ctypes can tell the address of what may be written only
        return haystack.tobytes().find(needle)
    start = ctypes.addressof(ctypes.c_char.from_buffer(haystack))
    found = _memmem(start, len(haystack), needle, len(needle))
    return -1 if found is None else int(found) - start
