"""Which other files hold weights of an ONNX file: exporters put those of large models beside it.

Read from the file's own bytes, without the model's runtime, because whoever names a model has to look at all of its
weights. Only headers are read, whatever the size of the file.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

_GRAPH = 7  # of ModelProto
_INITIALIZER = 5  # of GraphProto
_EXTERNAL_DATA = 13  # of TensorProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto

Span = tuple[int, int]


def external_files(model: Path) -> list[Path]:
    """The files that the graph's weights are in, sorted, each once; none where the file is no ONNX file.

    Raises OSError where the model cannot be read. Whether the others are there is not looked at.
    """
    if model.stat().st_size == 0:  # nothing to map
        return []
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            locations = set(_locations(content))
        except (IndexError, ValueError):
            return []
    return sorted(model.parent / location for location in locations if location and "\0" not in location)


def _locations(content: mmap.mmap) -> Iterator[str]:
    for graph in _inside(content, (0, len(content)), _GRAPH):
        for tensor in _inside(content, graph, _INITIALIZER):
            for entry in _inside(content, tensor, _EXTERNAL_DATA):
                key, value = ("".join(_texts(content, entry, field)) for field in (_KEY, _VALUE))
                if key == "location":
                    yield value


def _texts(content: mmap.mmap, span: Span, field: int) -> Iterator[str]:
    return (content[start:end].decode() for start, end in _inside(content, span, field))


def _inside(content: mmap.mmap, span: Span, wanted: int) -> Iterator[Span]:
    """Where the length-delimited fields of that number lie in a message. Raises ValueError where it is none."""
    at, end = span
    while at < end:
        tag, at = _varint(content, at)
        match tag & 7:
            case 0:  # a number
                _, at = _varint(content, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:  # with its length before it
                length, at = _varint(content, at)
                if tag >> 3 == wanted:
                    yield at, at + length
                at += length
            case other:
                raise ValueError(f"wire type {other}")
    if at != end:
        raise ValueError("a field reaches beyond its message")


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number too long")
