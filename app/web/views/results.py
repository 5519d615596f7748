"""Answers that carry a run's results: short ones at once, long ones written while they are read.

A long one holds a slot until it is written, and never more than one page of the results in memory. If the run begins
anew meanwhile, the answer is broken off: a client sees a chunked body without its end, never a mixture of two tries.
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

WRITTEN_BYTES = 32 * 1024
"""Annotations are gathered to about so many bytes before they are written."""


def answer(members: dict[str, Any], frames: Frames) -> Response:
    """A JSON object of these members and, behind them, `annotations`. Raises Unavailable where it needs a slot and
    there is none."""
    pages = run_results.pages(get_services().queries, frames)
    first = next(pages)
    if len(first) < PAGE_ROWS:
        return jsonify(**members, annotations=serializers.detections(run_results.frame_results([first])))
    response = Response(_written(members, chain([first], pages)), mimetype="application/json")
    request_slot.keep(response)
    return response


def _written(members: dict[str, Any], pages: Iterable[Page]) -> Iterator[str]:
    piece, separator = json.dumps(members)[:-1] + ', "annotations": [', ""
    for result in run_results.frame_results(pages):
        piece += separator + json.dumps(serializers.detections([result]))[1:-1]
        separator = ", "
        if len(piece) >= WRITTEN_BYTES:
            yield piece
            piece = ""
    yield piece + "]}\n"
