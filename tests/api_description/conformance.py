"""Checks whether a value conforms to a schema of the OpenAPI document.

It supports the part of JSON Schema 2020-12 that the document uses, and rejects any other keyword. Members that a schema
does not name are violations: the schemas are open for clients, which must tolerate new members, but the service must
describe all it sends.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

Schema = Mapping[str, Any]

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_NOTES = {
    "description",
    "default",
    "format",
    "contentMediaType",
    "additionalProperties",
    "x-enum-varnames",
}  # the last: see the module's docstring


def _is_type(value: Any, wanted: str | list[str]) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _TYPES[name]) for name in names)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(value: Any, wanted: Any) -> bool:
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


_SIMPLE: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": _is_type,
    "const": _same,
    "enum": lambda value, allowed: any(_same(value, one) for one in allowed),
    "pattern": lambda value, pattern: not isinstance(value, str) or re.search(pattern, value) is not None,
    "minLength": lambda value, least: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda value, most: not isinstance(value, str) or len(value) <= most,
    "minItems": lambda value, least: not isinstance(value, list) or len(value) >= least,
    "maxItems": lambda value, most: not isinstance(value, list) or len(value) <= most,
    "minimum": lambda value, least: not _is_number(value) or value >= least,
    "maximum": lambda value, most: not _is_number(value) or value <= most,
    "exclusiveMinimum": lambda value, least: not _is_number(value) or value > least,
    "required": lambda value, names: not isinstance(value, dict) or set(names) <= set(value),
}
_STRUCTURE = {"$ref", "allOf", "anyOf", "properties", "items"}
KEYWORDS = _STRUCTURE | _SIMPLE.keys() | _NOTES


class Document:
    """An OpenAPI document whose references can be resolved."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content

    def at(self, reference: str) -> Any:
        """Return what a reference points to. Raises LookupError if there is nothing."""
        if not reference.startswith("#/"):
            raise LookupError(f"{reference} leads out of the document")
        found: Any = self.content
        for part in reference[2:].split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return found

    def resolved(self, node: Any) -> Any:
        """Return the node, or what it refers to."""
        while isinstance(node, dict) and "$ref" in node:
            node = self.at(node["$ref"])
        return node

    def violations(self, schema: Schema, value: Any, at: str = "$") -> list[str]:
        """Return where and how `value` violates `schema`; empty if it conforms."""
        return [*self._broken(schema, value, at), *self._undescribed(schema, value, at)]

    def _broken(self, schema: Schema, value: Any, at: str) -> Iterator[str]:
        for keyword, wanted in schema.items():
            if keyword not in KEYWORDS:
                raise ValueError(f"the checker does not know {keyword}, used for {at}")
            if keyword in _SIMPLE and not _SIMPLE[keyword](value, wanted):
                yield f"{at} is {value!r}, against {keyword} {wanted!r}"
        if "$ref" in schema:
            yield from self._broken(self.at(schema["$ref"]), value, at)
        for part in schema.get("allOf", ()):
            yield from self._broken(part, value, at)
        if "anyOf" in schema:
            yield from self._none_of(schema["anyOf"], value, at)
        yield from self._broken_within(schema, value, at)

    def _broken_within(self, schema: Schema, value: Any, at: str) -> Iterator[str]:
        if isinstance(value, dict):
            for name in schema.get("properties", {}).keys() & value.keys():
                yield from self.violations(schema["properties"][name], value[name], f"{at}.{name}")
        if isinstance(value, list) and "items" in schema:
            for number, item in enumerate(value):
                yield from self.violations(schema["items"], item, f"{at}[{number}]")

    def _none_of(self, alternatives: list[Schema], value: Any, at: str) -> list[str]:
        found = [self.violations(alternative, value, at) for alternative in alternatives]
        return [] if [] in found else [f"{at} fits no alternative: {'; '.join(chain.from_iterable(found))}"]

    def _undescribed(self, schema: Schema, value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, dict):
            return
        described = self._members(schema)
        if described is not None:
            yield from (f"{at}.{name} is not described" for name in value.keys() - described)

    def _members(self, schema: Schema) -> set[str] | None:
        """Return the members that a schema names; None if it, or an alternative checked before, allows any."""
        if "anyOf" in schema:
            return None
        parts = [*schema.get("allOf", ()), *([self.at(schema["$ref"])] if "$ref" in schema else ())]
        of_parts = [self._members(part) for part in parts]
        if any(members is None for members in of_parts) or not (parts or "properties" in schema):
            return None
        return set(schema.get("properties", ())).union(*(members for members in of_parts if members))
