"""Compares every request to an annotations service in a test with the document's `webhooks`.

The tests' receivers pass on what arrives, and `tests/conftest.py` fails the test if it is not as described. Requests of
other senders, which tests make up to see them refused, are recognized by their User-Agent.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.process.version import USER_AGENT
from tests.api_description.description import API, CONTENT

PATHS = {
    "createMedia": ("post", re.compile(r"/api/media")),
    "changeMediaStatus": ("put", re.compile(r"/api/media/(?P<id>[^/]+)/status")),
    "getMedia": ("get", re.compile(r"/api/media/(?P<id>[^/]+)")),
}
"""Which webhook a request is: its method, and its path below ANNOTATIONS_URL."""

found: list[str] = []
"""What was not as described since the test began."""


def observe(method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
    """Record how a request differs from the description, if this service's client sent it."""
    named = {name.lower(): value for name, value in headers.items()}
    if named.get("user-agent") == USER_AGENT:
        found.extend(violations(method, path, named, body))


def violations(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    """Return how a request differs from the description. Header names are in lower case."""
    for name, (its_method, pattern) in PATHS.items():
        matched = re.search(f"{pattern.pattern}$", path)
        if method.lower() == its_method and matched:
            operation = CONTENT["webhooks"][name][its_method]
            yield from _parameters(operation, headers, matched.groupdict())
            yield from _body(operation, headers, body)
            return
    yield f"{method} {path} is no described request"


def _parameters(operation: Mapping[str, Any], headers: Mapping[str, str], in_path: Mapping[str, str]) -> Iterator[str]:
    if not headers.get("authorization", "").startswith("Bearer "):
        yield f"{operation['operationId']} without a bearer token"
    for parameter in map(API.resolved, operation["parameters"]):
        given = headers if parameter["in"] == "header" else in_path
        value = given.get(parameter["name"].lower())
        where = f"{operation['operationId']} {parameter['name']}"
        if value is not None:
            yield from API.violations(parameter["schema"], value, where)
        elif parameter.get("required"):
            yield f"{where} is missing"
    described = {API.resolved(one)["name"].lower() for one in operation["parameters"]}
    unknown = {name for name in headers if name.startswith(("x-", "idempotency"))} - described
    yield from (f"{operation['operationId']} sends {name}, which is not described" for name in unknown)


def _body(operation: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    if "requestBody" not in operation:
        if body:
            yield f"{operation['operationId']} has a body"
        return
    if headers.get("content-type") != "application/json":
        yield f"{operation['operationId']} is {headers.get('content-type')}"
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    yield from API.violations(schema, json.loads(body), operation["operationId"])
