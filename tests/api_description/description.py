"""Access to the OpenAPI document: operations, parameters, responses and schemas."""

import json
import re
from collections.abc import Iterator
from typing import Any

from app.web.views.openapi import DOCUMENT
from tests.api_description.conformance import Document, Schema

CONTENT = json.loads(DOCUMENT.read_text())
API = Document(CONTENT)
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each operation with its path and method."""
    for path, item in CONTENT["paths"].items():
        yield from ((path, method, item[method]) for method in METHODS & item.keys())


def nodes(node: Any, at: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each JSON object of the document with its location, except the values of examples."""
    if isinstance(node, dict):
        yield at, node
        for name, child in node.items():
            if name not in ("example", "value"):
                yield from nodes(child, f"{at}/{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from nodes(child, f"{at}/{number}")


def schemas() -> Iterator[tuple[str, Schema]]:
    """Yield each schema, including nested ones."""
    for at, node in nodes(CONTENT):
        parent, _, name = at.rpartition("/")
        if name in ("schema", "items") or re.search("/(schemas|properties|allOf|anyOf)$", parent):
            yield at, node


def described_parameters(path: str, operation: dict[str, Any]) -> list[dict[str, Any]]:
    own, shared = operation.get("parameters", []), CONTENT["paths"][path].get("parameters", [])
    return [API.resolved(parameter) for parameter in (*shared, *own)]


def described_response(method: str, path: str, status: int) -> dict[str, Any]:
    found: dict[str, Any] = API.resolved(CONTENT["paths"][path][method]["responses"][str(status)])
    return found


def problem_types(schema: Schema) -> Iterator[str]:
    """Return the problem types that a schema allows."""
    kind = schema.get("properties", {}).get("type", {})
    yield from kind.get("enum", [kind["const"]] if "const" in kind else [])
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        yield from problem_types(API.resolved(part))
