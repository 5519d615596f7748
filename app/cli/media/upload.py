"""`flask media upload`: uploads files over unreliable links. Needs no settings of the service and no database."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
from rich.filesize import decimal

from app.cli.media.upload_options import detection_options, service_options
from app.cli.media.upload_progress import show_progress
from app.cli.output import json_option, note, printable, show_json, show_table
from app.cli.usage import usage
from app.client.options import UploadOptions
from app.client.selection import select_files
from app.client.service import RemoteService
from app.client.unfinished import UnfinishedUploads, state_folder
from app.client.upload import MAX_PART_BYTES, MIB, Result, Uploader

FAILED = 1
STATUS_NAMES = {1: "new", 2: "processing", 3: "processed", 6: "error"}


@click.command(
    short_help="Upload files over unreliable links.",
    epilog=usage(
        "export DETECTIONS_URL=https://detections.example DETECTIONS_TOKEN=…",
        "flask media upload IMG_0001.jpg flight.mp4",
        "flask media upload --recursive --no-detect /media/card",
        "flask media upload --json -r footage | jq '.[].outcome'",
        exits={
            0: "the service has every file",
            FAILED: "some files failed: standard error says why; run it again to continue",
        },
    ),
)
@click.argument("paths", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, path_type=Path))
@service_options
@click.option("--recursive", "-r", is_flag=True, help="Upload every file with a known extension in given folders.")
@detection_options
@click.option(
    "--attempts",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Maximum consecutive attempts without progress.",
)
@click.option(
    "--part-size",
    type=click.FloatRange(0, MAX_PART_BYTES / MIB, min_open=True),
    default=MAX_PART_BYTES / MIB,
    show_default=True,
    help="MiB of a large file per request; use less if a proxy limits request bodies.",
)
@json_option
def upload(
    paths: Sequence[Path],
    service: RemoteService,
    options: UploadOptions,
    recursive: bool,
    attempts: int,
    part_size: float,
    as_json: bool,
) -> None:
    """Upload files to a service at an address, over unreliable links; needs none of the service's settings.

    A file that the service already has (equal size and checksum) is not sent again, so a list of files continues where
    it stopped. A file above 8 MiB continues after the bytes that the service has, both after a broken link and after a
    stop. Transient failures are retried after a backoff or when the service says.
    """
    folders = [path for path in paths if path.is_dir()]
    if folders and not recursive:
        raise click.UsageError(f"{printable(str(folders[0]))} is a folder; use --recursive to upload its files.")
    files, skipped = select_files(paths)
    if skipped:
        note(f"{skipped} files with other extensions are skipped.")
    with service:
        unfinished = UnfinishedUploads(state_folder(os.environ))
        part_bytes = max(1, int(part_size * MIB))
        uploader = Uploader(service, options, attempts=attempts, unfinished=unfinished, part_bytes=part_bytes)
        results = _upload_all(files, uploader, quiet=as_json)
    if as_json:
        show_json([_document(result) for result in results])
    missing = [result for result in results if result.outcome in ("failed", "not attempted")]
    if missing:
        note(f"{len(missing)} of {len(files)} files were not uploaded:")
        show_table(("why", "file"), [(result.reason or result.outcome, result.path) for result in missing], err=True)
        raise SystemExit(FAILED)


def _upload_all(files: Sequence[Path], uploader: Uploader, *, quiet: bool) -> list[Result]:
    """Upload the files in turn, and print a line for each unless `quiet`. Files never reached are "not attempted"."""
    results: list[Result] = []
    try:
        with show_progress(len(files)) as progress:
            for path in files:
                progress.begin(path)
                results.append(uploader.upload(path, progress))
                if not quiet:
                    click.echo(_line(results[-1]))
                if results[-1].ends_list:
                    break
    except KeyboardInterrupt:
        note("Stopped. Run the same command to continue.")
    return results + [Result(path, "not attempted") for path in files[len(results) :]]


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
