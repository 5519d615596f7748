"""Finds the files that hold an ONNX model's external weights; exporters store those of large models beside it.

A detector's name depends on all weights, so the process that names it needs these files without onnxruntime. This
module reads only the headers in the model's protobuf, whatever the size of the file.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

_GRAPH = 7  # field of ModelProto
_INITIALIZER = 5  # field of GraphProto
_EXTERNAL_DATA = 13  # field of TensorProto
_KEY, _VALUE = 1, 2  # fields of StringStringEntryProto

Span = tuple[int, int]


def external_files(model: Path) -> list[Path]:
    """Return the files of the graph's external weights, sorted; an empty list if the file is not ONNX.

    Raises OSError if the model cannot be read. The external files may be missing.
    """
    if model.stat().st_size == 0:  # an empty file cannot be mapped
        return []
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            locations = set(_locations(content))
        except (IndexError, ValueError):
            return []
    return sorted(model.parent / location for location in locations if location and "\0" not in location)


def _locations(content: mmap.mmap) -> Iterator[str]:
    for graph in _fields(content, (0, len(content)), _GRAPH):
        for tensor in _fields(content, graph, _INITIALIZER):
            for entry in _fields(content, tensor, _EXTERNAL_DATA):
                key, value = ("".join(_strings(content, entry, field)) for field in (_KEY, _VALUE))
                if key == "location":
                    yield value


def _strings(content: mmap.mmap, span: Span, field: int) -> Iterator[str]:
    return (content[start:end].decode() for start, end in _fields(content, span, field))


def _fields(content: mmap.mmap, span: Span, wanted: int) -> Iterator[Span]:
    """Yield the spans of a message's length-delimited fields of that number. Raises ValueError if it is malformed."""
    position, end = span
    while position < end:
        tag, position = _varint(content, position)
        match tag & 7:
            case 0:  # varint
                _, position = _varint(content, position)
            case 1:
                position += 8
            case 5:
                position += 4
            case 2:  # length-delimited
                length, position = _varint(content, position)
                if tag >> 3 == wanted:
                    yield position, position + length
                position += length
            case other:
                raise ValueError(f"wire type {other}")
    if position != end:
        raise ValueError("a field reaches beyond its message")


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("a varint is too long")
