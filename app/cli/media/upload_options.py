"""The options of `flask media upload`, gathered into the two things that they say: which service, and what to do."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from app.client.options import UploadOptions
from app.client.service import RemoteService, is_web_address

Command = Callable[..., None]


def service_options(command: Command) -> Command:
    """Which service, as `service`: a RemoteService that is yet to be entered."""

    @click.option(
        "--url",
        required=True,
        envvar="DETECTIONS_URL",
        show_envvar=True,
        callback=_checked_url,
        help="The service's address.",
    )
    @click.option(
        "--token",
        required=True,
        envvar="DETECTIONS_TOKEN",
        show_envvar=True,
        callback=_checked_token,
        help="A bearer token; better from the environment, because others can see command lines.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        help="Seconds of silence after which an attempt is given up.",
    )
    @wraps(command)
    def with_service(*arguments: Any, url: str, token: str, timeout: float, **others: Any) -> None:
        command(*arguments, service=RemoteService(url, token, silence=timeout), **others)

    return with_service


def detection_options(command: Command) -> Command:
    """What to do with the files, as `options`: an UploadOptions."""

    @click.option("--detect/--no-detect", default=True, show_default=True, help="Have objects detected, or only store.")
    @click.option(
        "--confidence",
        type=click.FloatRange(0.01, 1),
        help="Drop boxes below; the service's own choice where not given.",
    )
    @click.option(
        "--frame-interval",
        type=click.FloatRange(0, 3600, min_open=True),
        help="Seconds between the frames of a video that are looked at; the service's own choice where not given.",
    )
    @click.option("--rerun", is_flag=True, help="Detect anew, also in files that have a result.")
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
            raise click.UsageError(
                "--confidence, --frame-interval and --rerun say how to detect; leave --no-detect out."
            )
        options = UploadOptions(detect=detect, confidence=confidence, frame_interval=frame_interval, rerun=rerun)
        command(*arguments, options=options, **others)

    return with_options


def _checked_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not is_web_address(value):
        raise click.BadParameter(f"must be the service's http:// or https:// address, without a password: {value!r}.")
    return value


def _checked_token(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    token = value.strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise click.BadParameter("must be printable ASCII without spaces.")
    return token
