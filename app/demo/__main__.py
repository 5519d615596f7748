"""The whole service at work, for people who want to see it: `bin/demo`, or `python -m app.demo` in its environment.

Promise: exit code 0 when everything happened as told, 1 when a step failed, which is then named; whichever it is, and
after Ctrl-C and SIGTERM too, no process and no folder is left behind, unless --keep asked for them and all went well.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import requests

from app.demo.console import Narration
from app.demo.environment import Stage
from app.demo.failure import StepFailed
from app.demo.folder import DemoFolder
from app.demo.interruptions import Interrupted, Interruptions
from app.demo.picture import can_be_written, write_picture
from app.demo.process import ROOT
from app.demo.scenario import ASTRONAUT, Performance, perform


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform. Returns the exit code: 0, 1 after a failed step, 128 and the signal's number after a signal."""
    options = _parse(arguments)
    show, interruptions = Narration(), Interruptions()
    interruptions.install()
    try:
        return _run(options, show, interruptions)
    except Interrupted as interruption:
        show.complain(f"demo: ended by {interruption}; nothing is left behind")
        return 128 + interruption.number
    except OSError as error:
        show.complain(f"demo: cleaning up failed: {error}")
        return 1


def _run(options: argparse.Namespace, show: Narration, interruptions: Interruptions) -> int:
    began = time.monotonic()
    stage: Stage | None = None
    with ExitStack() as cleanup:
        try:
            show.step = "make a folder for it"
            with interruptions.held():
                folder = DemoFolder.named(options.keep) if options.keep else DemoFolder.temporary()
                cleanup.callback(folder.remove)
                stage = Stage(folder, interruptions, options.model)
                cleanup.callback(stage.close)
            performance = perform(stage, show)
            show.begin(f"draw the boxes into {_shown(options.out)}")
            write_picture(options.out, performance.photos)
            if options.keep:
                with interruptions.held():
                    processes = stage.leave_running()
                    cleanup.pop_all()
                _tell_how_to_go_on(show, stage, folder, processes)
            show.end(*_summary(performance, options.out, time.monotonic() - began, kept=bool(options.keep)))
        except (StepFailed, OSError, requests.RequestException) as error:
            _explain(show, stage, error)
            return 1
        finally:
            interruptions.ignore()
    return 0


def _explain(show: Narration, stage: Stage | None, error: Exception) -> None:
    show.complain("", f"demo: this step failed: {show.step}", f"demo: {error}")
    process = error.process if isinstance(error, StepFailed) else None
    for concerned in stage.concerned(process) if stage else []:
        condition = "" if concerned.exit_code is None else f", which has ended with exit code {concerned.exit_code}"
        show.complain(
            f"demo: the last lines of {concerned.log.name} (process {concerned.pid}{condition}):",
            *(f"  {one}" for one in concerned.last_lines()),
        )


def _tell_how_to_go_on(show: Narration, stage: Stage, folder: DemoFolder, processes: Sequence[int]) -> None:
    settings, python = shlex.quote(str(folder.settings)), shlex.quote(sys.executable)
    annotations = f"{python} {shlex.join(stage.annotations_arguments())}"
    show.act("Everything goes on running")
    show.say(f"page:                 {stage.service_url}/  (sign in there with one of the tokens)")
    show.say(f"administrator, a day: {stage.admin_token()}")
    show.say(f"user, for a day:      {stage.token()}")
    show.say(
        f"curl:                 curl -H 'Authorization: Bearer {stage.token()}' -F file=@{shlex.quote(str(ASTRONAUT))}"
        f" {stage.service_url}/detect"
    )
    show.say(f"annotations service:  {stage.annotations_url}  (what has arrived: {stage.annotations_url}/_log)")
    show.say(f"files and logs:       {folder.path}")
    show.say("In the checkout:")
    show.say(f"commands:             (set -a; . {settings}; {python} -m flask outbox status)")
    show.say(f"an outage:            kill {processes[-1]}")
    show.say(f"its end:              (. {settings}; ANNOTATIONS_SECRET=$JWT_SECRET_KEY exec {annotations})")
    show.say(f"stop:                 kill {' '.join(map(str, processes))}")


def _summary(performance: Performance, picture: Path, seconds: float, *, kept: bool) -> tuple[str, str]:
    found = sum(len(detections) for _, detections in performance.photos)
    rest = "everything goes on running" if kept else "nothing else is left behind"
    told = (
        f"{len(performance.photos)} photos, {found} objects detected, {performance.arrived} messages arrived in order,"
        f" half of them after an outage of {performance.outage:.0f} s. It took {seconds:.0f} s."
    )
    return told, f"The picture is {_shown(picture)}; {rest}."


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/demo",
        description="The service under gunicorn beside a reference annotations service: uploads become detections and"
        " statuses that arrive, through an outage too. Settings of the environment are not heeded.",
    )
    parser.add_argument(
        "--out",
        type=_absolute,
        default=ROOT / "var" / "demo.png",
        metavar="FILE",
        help="where the picture with the boxes goes (default: var/demo.png in the checkout)",
    )
    parser.add_argument(
        "--keep",
        type=_absolute,
        nargs="?",
        const=ROOT / "var" / "demo",
        metavar="FOLDER",
        help="leave everything running, with its files in FOLDER (default: var/demo in the checkout), and tell how the"
        " page, the API and the commands are tried on it",
    )
    parser.add_argument(
        "--model",
        type=_absolute,
        metavar="FILE",
        help="weights to detect with (YOLO's ONNX) instead of the built-in ones",
    )
    options = parser.parse_args(arguments)
    if not can_be_written(options.out):
        parser.error(f"--out {options.out.name}: no kind of picture has this ending")
    return options


def _shown(path: Path) -> Path:
    """The path as seen from the working folder, where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _absolute(path: str) -> Path:
    return Path(path).absolute()


if __name__ == "__main__":
    sys.exit(main())
