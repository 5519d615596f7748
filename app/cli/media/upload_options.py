"""Options of `flask media upload`, combined into a RemoteService and UploadOptions."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from app.client.options import UploadOptions
from app.client.service import RemoteService, is_web_address

Command = Callable[..., None]


def service_options(command: Command) -> Command:
    """Pass the service to the command as `service`, a RemoteService that is not yet entered."""

    @click.option(
        "--url",
        required=True,
        envvar="DETECTIONS_URL",
        show_envvar=True,
        callback=_check_url,
        help="Address of the service.",
    )
    @click.option(
        "--token",
        required=True,
        envvar="DETECTIONS_TOKEN",
        show_envvar=True,
        callback=_check_token,
        help="Bearer token; safer in the environment, because others can see command lines.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        help="Seconds without any byte after which an attempt fails.",
    )
    @wraps(command)
    def with_service(*arguments: Any, url: str, token: str, timeout: float, **others: Any) -> None:
        command(*arguments, service=RemoteService(url, token, timeout=timeout), **others)

    return with_service


def detection_options(command: Command) -> Command:
    """Pass the options to the command as `options`, an UploadOptions."""

    @click.option("--detect/--no-detect", default=True, show_default=True, help="Detect objects, or only store.")
    @click.option(
        "--confidence",
        type=click.FloatRange(0.01, 1),
        help="Minimum confidence of detections; default: the service's setting.",
    )
    @click.option(
        "--frame-interval",
        type=click.FloatRange(0, 3600, min_open=True),
        help="Seconds between a video's sampled frames; default: the service's setting.",
    )
    @click.option("--rerun", is_flag=True, help="Start a new run even if there is a result.")
    @wraps(command)
    def with_options(
        *arguments: Any,
        detect: bool,
        confidence: float | None,
        frame_interval: float | None,
        rerun: bool,
        **others: Any,
    ) -> None:
        if not detect and (rerun or (confidence, frame_interval) != (None, None)):
            raise click.UsageError("--confidence, --frame-interval and --rerun cannot be used with --no-detect.")
        options = UploadOptions(detect=detect, confidence=confidence, frame_interval=frame_interval, rerun=rerun)
        command(*arguments, options=options, **others)

    return with_options


def _check_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not is_web_address(value):
        raise click.BadParameter(
            f"must be the service's http:// or https:// address without a password, not {value!r}."
        )
    return value


def _check_token(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    token = value.strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise click.BadParameter("must be printable ASCII without spaces.")
    return token
