"""`flask media upload`: files to a service over a bad link. It needs no settings of the service and no database."""

from collections.abc import Sequence
from pathlib import Path

import click

from app.cli.output import json_option, note, printable, show_json, show_table
from app.cli.upload_progress import shown_progress
from app.cli.usage import usage
from app.client.selection import selected
from app.client.service import RemoteService, is_web_address
from app.client.upload import Result, Uploader

FAILED = 1
STATUS_NAMES = {1: "new", 2: "processing", 3: "processed", 6: "error"}


def _checked_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not is_web_address(value):
        raise click.BadParameter(f"must be the service's http:// or https:// address, without a password: {value!r}.")
    return value


def _checked_token(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    token = value.strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise click.BadParameter("must be printable ASCII without spaces.")
    return token


@click.command(
    short_help="Upload files to a service, over links that break.",
    epilog=usage(
        "export DETECTIONS_URL=https://detections.example DETECTIONS_TOKEN=…",
        "flask media upload IMG_0001.jpg flight.mp4",
        "flask media upload --recursive --no-detect /media/card",
        "flask media upload --json -r footage | jq '.[].outcome'",
        exits={
            0: "every file is there",
            FAILED: "some are not: standard error says why; run it again to go on from there",
        },
    ),
)
@click.argument("paths", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, path_type=Path))
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
@click.option("--recursive", "-r", is_flag=True, help="Take folders: every file below with a known extension.")
@click.option("--detect/--no-detect", default=True, show_default=True, help="Have objects detected, or only store.")
@click.option("--tries", type=click.IntRange(1, 1000), default=8, show_default=True, help="At most so many a file.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds of silence after which a try is given up.",
)
@json_option
def upload(
    paths: Sequence[Path],
    url: str,
    token: str,
    recursive: bool,
    detect: bool,
    tries: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Upload files to a service at some address, over links that break; no setting of the service is needed here.

    A file that is there already (equal size and checksum) is not sent again, so a list that was stopped goes on where
    it was. Trouble that may pass is tried again, after a backoff or as long as the service asks for.
    """
    folders = [path for path in paths if path.is_dir()]
    if folders and not recursive:
        raise click.UsageError(f"{printable(str(folders[0]))} is a folder; --recursive takes the files below it.")
    files, passed_over = selected(paths)
    if passed_over:
        note(f"{passed_over} files of other kinds are passed over.")
    with RemoteService(url, token, silence=timeout) as service:
        results = _upload_all(files, Uploader(service, detect=detect, tries=tries), quiet=as_json)
    if as_json:
        show_json([_document(result) for result in results])
    missing = [result for result in results if result.outcome in ("failed", "not tried")]
    if missing:
        note(f"{len(missing)} of {len(files)} are not uploaded:")
        show_table(("why", "file"), [(result.reason or result.outcome, result.path) for result in missing], err=True)
        raise SystemExit(FAILED)


def _upload_all(files: Sequence[Path], uploader: Uploader, *, quiet: bool) -> list[Result]:
    """Every file in turn, each with a line of its own unless `quiet`; those never come to are in it as not tried."""
    results: list[Result] = []
    try:
        with shown_progress(len(files)) as progress:
            for path in files:
                progress.begin(path)
                results.append(uploader.upload(path, progress.sent, progress.waits))
                if not quiet:
                    click.echo(_line(results[-1]))
                if results[-1].ends_list:
                    break
    except KeyboardInterrupt:
        note("Stopped. The same command goes on from here.")
    return results + [Result(path, "not tried") for path in files[len(results) :]]


def _line(result: Result) -> str:
    status = STATUS_NAMES.get(result.status or 0, "-" if result.status is None else str(result.status))
    reason = f": {result.reason}" if result.reason else ""
    return printable(f"{result.media_id or '-':16}  {result.outcome:13}  {status:10}  {result.path}{reason}")


def _document(result: Result) -> dict[str, object]:
    return {
        "file": str(result.path).encode(errors="replace").decode(),
        "id": result.media_id,
        "outcome": result.outcome,
        "mediaStatus": result.status,
        "reason": result.reason,
    }
