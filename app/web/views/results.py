"""Responses with a run's results: small ones at once, large ones streamed.

A streamed response holds a slot and at most one page of results in memory. If the run starts again meanwhile, the
response is cut off without the end of its chunked body, so that attempts are never mixed.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from flask import Response, json, jsonify

from app import serializers
from app.current import get_services
from app.queries import run_results
from app.queries.run_results import PAGE_ROWS, Frames, Page
from app.web import request_slot

CHUNK_BYTES = 32 * 1024
"""Annotations are collected to about this size before they are written."""


def respond(members: dict[str, Any], frames: Frames) -> Response:
    """Return a JSON object of these members followed by `annotations`. Raises Unavailable if it needs a slot and none
    is free.
    """
    pages = run_results.pages(get_services().queries, frames)
    first = next(pages)
    if len(first) < PAGE_ROWS:
        return jsonify(**members, annotations=serializers.detections(run_results.frame_results([first])))
    response = Response(_stream(members, chain([first], pages)), mimetype="application/json")
    request_slot.keep(response)
    return response


def _stream(members: dict[str, Any], pages: Iterable[Page]) -> Iterator[str]:
    chunk, separator = json.dumps(members)[:-1] + ', "annotations": [', ""
    for result in run_results.frame_results(pages):
        chunk += separator + json.dumps(serializers.detections([result]))[1:-1]
        separator = ", "
        if len(chunk) >= CHUNK_BYTES:
            yield chunk
            chunk = ""
    yield chunk + "]}\n"
