"""Tiny ONNX models as bytes, written field by field, so that the tests need no exporter."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

Shape = Sequence[int | str]
_ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int64": 7, "float16": 10, "float64": 11}
_VARINT, _LENGTH_DELIMITED = 0, 2
_EXTERNAL = 1


def model(
    nodes: Sequence[bytes],
    constants: Mapping[str, NDArray[Any]],
    input_shape: Shape,
    input_type: str = "float32",
    output: tuple[Shape, str] = ((), "float32"),
    metadata: Mapping[str, str] | None = None,
    *,
    external: str | None = None,
    opset: int = 13,
    more_inputs: Sequence[str] = (),
) -> bytes:
    """Return a model from `images` to `output0` with these nodes.

    `external` names the file beside the model that `weights`, with the same constants, is written to.
    """
    tensors = _inside(constants) if external is None else _outside(constants, external)
    inputs = [
        _value_info("images", input_shape, input_type),
        *(_value_info(name, (1,), "int64") for name in more_inputs),
    ]
    graph = b"".join(
        [
            *(_message(1, node) for node in nodes),
            _text(2, "tiny"),
            *(_message(5, tensor) for tensor in tensors),
            *(_message(11, one) for one in inputs),
            _message(12, _value_info("output0", *output)),
        ]
    )
    properties = b"".join(_message(14, _text(1, key) + _text(2, value)) for key, value in (metadata or {}).items())
    return _number(1, 8) + _message(7, graph) + _message(8, _text(1, "") + _number(2, opset)) + properties


def weights(constants: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the content of a model's external file."""
    return b"".join(value.tobytes() for value in constants.values())


def constant_model(
    table: NDArray[Any],
    input_shape: Shape,
    input_type: str = "float32",
    metadata: Mapping[str, str] | None = None,
    *,
    external: str | None = None,
    opset: int = 13,
    more_inputs: Sequence[str] = (),
) -> bytes:
    """Return a model that outputs that table for every picture."""
    return model(
        [node("Identity", ["table"], "output0")],
        {"table": table},
        input_shape,
        input_type,
        (table.shape, table.dtype.name),
        metadata,
        external=external,
        opset=opset,
        more_inputs=more_inputs,
    )


def node(operation: str, inputs: Sequence[str], output: str) -> bytes:
    """Return an operation without attributes."""
    return b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, operation)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _inside(constants: Mapping[str, NDArray[Any]]) -> list[bytes]:
    return [_tensor_head(name, value) + _message(9, value.tobytes()) for name, value in constants.items()]


def _outside(constants: Mapping[str, NDArray[Any]], file: str) -> list[bytes]:
    tensors, offset = [], 0
    for name, value in constants.items():
        place = {"location": file, "offset": str(offset), "length": str(value.nbytes)}
        entries = b"".join(_message(13, _text(1, key) + _text(2, text)) for key, text in place.items())
        tensors.append(_tensor_head(name, value) + entries + _number(14, _EXTERNAL))
        offset += value.nbytes
    return tensors


def _tensor_head(name: str, value: NDArray[Any]) -> bytes:
    dimensions = b"".join(_number(1, side) for side in value.shape)
    return dimensions + _number(2, _ELEMENT_TYPES[value.dtype.name]) + _text(8, name)


def _value_info(name: str, shape: Shape, element_type: str) -> bytes:
    sides = b"".join(_message(1, _text(2, side) if isinstance(side, str) else _number(1, side)) for side in shape)
    tensor = _number(1, _ELEMENT_TYPES[element_type]) + _message(2, sides)
    return _text(1, name) + _message(2, _message(1, tensor))
