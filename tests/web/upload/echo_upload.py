"""A small application for tests of request bodies: it checks a header, streams the body, and reports what it received.

    gunicorn -c gunicorn.conf.py "tests.web.upload.echo_upload:create_app()"

`POST /upload` returns `{"name", "length", "xxh3", "declared"}`. `GET /bytes/N`, `/chunks/N` and `/file/N` return the
first N bytes of PATTERN, holding a slot if the query is `slot`. `GET /healthz` responds at once. Calls of the fake
services are logged to stderr.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import xxhash

from app.errors import DetectionsError, MalformedUpload, MediaTooLarge, Unauthorized, UnsupportedMedia, UploadTimedOut
from app.web.server.answer_socket import answer_socket_of
from app.web.server.gunicorn_worker import HeadFirstWorker
from app.web.upload.body import open_upload
from app.web.upload.receive_timeouts import ReaderPace

PATTERN = bytes(range(251)) * (1 << 15)
PIECE = 100_000
STATUS = {
    MalformedUpload: "400 Bad Request",
    Unauthorized: "401 Unauthorized",
    UploadTimedOut: "408 Request Timeout",
    MediaTooLarge: "413 Content Too Large",
    UnsupportedMedia: "415 Unsupported Media Type",
}


class ImpatientWorker(HeadFirstWorker):
    """The project's worker with a short limit."""

    head_seconds = 0.5
    reader_pace = staticmethod(partial(ReaderPace, 3.0, grace=2.0, bytes_per_second=64 * 1024))


class Services:
    """Replaces the application's services; logs its start and stop."""

    def start(self, *, threads: int, processes: int, processor: int | None) -> None:
        del processes, processor
        print(f"services started with {threads} threads", file=sys.stderr, flush=True)

    def stop(self) -> None:
        print("services stopped", file=sys.stderr, flush=True)


class EchoUpload:
    def __init__(self, *, max_bytes: int, idle_timeout: float, grace: float, bytes_per_second: float) -> None:
        self.extensions = {"detections": Services()}
        self._max_bytes = max_bytes
        self._idle_timeout = idle_timeout
        self._grace = grace
        self._bytes_per_second = bytes_per_second

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].count("/") == 2:
            return _pattern(environ, start_response)
        try:
            answer = self._upload(environ) if environ["PATH_INFO"] == "/upload" else {"path": environ["PATH_INFO"]}
            status = "200 OK"
        except DetectionsError as error:
            answer, status = {"error": str(error)}, STATUS[type(error)]
        body = json.dumps(answer).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _upload(self, environ: WSGIEnvironment) -> dict[str, object]:
        if environ.get("HTTP_AUTHORIZATION") != "Bearer good":
            raise Unauthorized("no token")
        upload = open_upload(
            environ,
            max_bytes=self._max_bytes,
            idle_timeout=self._idle_timeout,
            grace=self._grace,
            bytes_per_second=self._bytes_per_second,
        )
        digest, length = xxhash.xxh3_128(), 0
        for chunk in upload.chunks():
            digest.update(chunk)
            length += len(chunk)
        return {
            "name": upload.name,
            "length": length,
            "xxh3": digest.hexdigest(),
            "declared": upload.declared_bytes,
        }


def _pattern(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    _, kind, length = environ["PATH_INFO"].split("/")
    answer = answer_socket_of(environ)
    if answer is not None and environ["QUERY_STRING"] == "slot":
        answer.holds_slot = True
    content = PATTERN[: int(length)]
    start_response("200 OK", [("Content-Length", length)] if kind != "chunks" else [])
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    if kind == "bytes":
        return [content]
    if kind == "chunks":
        return (content[at : at + PIECE] for at in range(0, len(content), PIECE))
    fd, path = tempfile.mkstemp()
    Path(path).write_bytes(content)
    Path(path).unlink()
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](os.fdopen(fd, "rb"))
    return wrapped


def create_app() -> EchoUpload:
    return EchoUpload(
        max_bytes=int(os.environ.get("ECHO_MAX_BYTES", str(1 << 40))),
        idle_timeout=float(os.environ.get("ECHO_IDLE_SECONDS", "30")),
        grace=float(os.environ.get("ECHO_GRACE_SECONDS", "60")),
        bytes_per_second=float(os.environ.get("ECHO_BYTES_PER_SECOND", "1024")),
    )
