"""`flask media upload`: files to a service over a bad link. It needs no settings of the service and no database."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
from rich.filesize import decimal

from app.cli.media.upload_options import detection_options, service_options
from app.cli.media.upload_progress import shown_progress
from app.cli.output import json_option, note, printable, show_json, show_table
from app.cli.usage import usage
from app.client.options import UploadOptions
from app.client.selection import selected
from app.client.service import RemoteService
from app.client.unfinished import UnfinishedUploads, state_folder
from app.client.upload import LARGEST_PART, MIB, Result, Uploader

FAILED = 1
STATUS_NAMES = {1: "new", 2: "processing", 3: "processed", 6: "error"}


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
@service_options
@click.option("--recursive", "-r", is_flag=True, help="Take folders: every file below with a known extension.")
@detection_options
@click.option(
    "--tries",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Attempts in a row that bring no byte further.",
)
@click.option(
    "--part-size",
    type=click.FloatRange(0, LARGEST_PART / MIB, min_open=True),
    default=LARGEST_PART / MIB,
    show_default=True,
    help="MiB that one request carries of a large file; less where a proxy refuses long bodies.",
)
@json_option
def upload(
    paths: Sequence[Path],
    service: RemoteService,
    options: UploadOptions,
    recursive: bool,
    tries: int,
    part_size: float,
    as_json: bool,
) -> None:
    """Upload files to a service at some address, over links that break; no setting of the service is needed here.

    A file that is there already (equal size and checksum) is not sent again, so a list that was stopped goes on where
    it was. A file above 8 MiB goes on behind the bytes that are there, after a break and after a stop. What may pass is
    tried again, after a backoff or as long as the service asks for.
    """
    folders = [path for path in paths if path.is_dir()]
    if folders and not recursive:
        raise click.UsageError(f"{printable(str(folders[0]))} is a folder; --recursive takes the files below it.")
    files, passed_over = selected(paths)
    if passed_over:
        note(f"{passed_over} files of other kinds are passed over.")
    with service:
        unfinished = UnfinishedUploads(state_folder(os.environ))
        part_bytes = max(1, int(part_size * MIB))
        uploader = Uploader(service, options, tries=tries, unfinished=unfinished, part_bytes=part_bytes)
        results = _upload_all(files, uploader, quiet=as_json)
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
                results.append(uploader.upload(path, progress))
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
    if result.resumed_at:
        reason += f" (resumed at {decimal(result.resumed_at)})"
    return printable(f"{result.media_id or '-':16}  {result.outcome:13}  {status:10}  {result.path}{reason}")


def _document(result: Result) -> dict[str, object]:
    return {
        "file": str(result.path).encode(errors="replace").decode(),
        "id": result.media_id,
        "outcome": result.outcome,
        "mediaStatus": result.status,
        "reason": result.reason,
        "resumedAt": result.resumed_at,
    }
