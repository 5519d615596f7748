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
from typing import Any

import requests

from app.demo.console import Console
from app.demo.environment import Environment
from app.demo.folder import DemoFolder
from app.demo.interruptions import Interrupted, Interruptions
from app.demo.picture import can_be_written, write_picture
from app.demo.process import ROOT, StepFailed
from app.demo.scenario import ASTRONAUT, Scenario


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform. Returns the exit code: 0, 1 after a failed step, 128 and the signal's number after a signal."""
    options = _parse(arguments)
    console, interruptions = Console(), Interruptions()
    interruptions.install()
    try:
        return _run(options, console, interruptions)
    except Interrupted as interruption:
        console.complain(f"demo: ended by {interruption}; nothing is left behind")
        return 128 + interruption.number
    except OSError as error:
        console.complain(f"demo: cleaning up failed: {error}")
        return 1


def _run(options: argparse.Namespace, console: Console, interruptions: Interruptions) -> int:
    began = time.monotonic()
    environment: Environment | None = None
    with ExitStack() as cleanup:
        try:
            console.step = "make a folder for it"
            with interruptions.held():
                folder = DemoFolder.named(options.keep) if options.keep else DemoFolder.temporary()
                cleanup.callback(folder.remove)
                environment = Environment(folder, interruptions, options.model)
                cleanup.callback(environment.close)
            told = _perform(Scenario(environment, console), options, console)
            if options.keep:
                with interruptions.held():
                    processes = environment.leave_running()
                    cleanup.pop_all()
                _tell_how_to_go_on(console, environment, folder, processes)
            rest = "Everything goes on running." if options.keep else "Nothing else is left behind."
            console.end(*told, f"It took {time.monotonic() - began:.0f} s. {rest}")
        except (StepFailed, OSError, requests.RequestException) as error:
            _explain(console, environment, error)
            return 1
        finally:
            interruptions.ignore()
    return 0


def _perform(scenario: Scenario, options: argparse.Namespace, console: Console) -> list[str]:
    """Play the acts that are asked for; returns what to say of them in the end."""
    scenario.set_up()
    if options.resumable:
        scenario.resumable_upload()
        return ["The file is whole, and no byte that HEAD had told was sent again."]
    scenario.upload()
    scenario.upload_in_outage()
    scenario.check_order()
    picture = options.out.relative_to(Path.cwd()) if options.out.is_relative_to(Path.cwd()) else options.out
    console.begin(f"draw the boxes into {picture}")
    write_picture(options.out, scenario.photos)
    found = sum(len(detections) for _, detections in scenario.photos)
    return [
        f"{len(scenario.photos)} photos, {found} objects detected, {scenario.arrived} messages arrived in order.",
        f"Half of them came after an outage of {scenario.outage:.0f} s. The picture is {picture}.",
    ]


def _explain(console: Console, environment: Environment | None, error: Exception) -> None:
    console.complain("", f"demo: this step failed: {console.step}", f"demo: {error}")
    process = error.process if isinstance(error, StepFailed) else None
    for concerned in environment.concerned(process) if environment else []:
        condition = "" if concerned.exit_code is None else f", which has ended with exit code {concerned.exit_code}"
        console.complain(
            f"demo: the last lines of {concerned.log.name} (process {concerned.pid}{condition}):",
            *(f"  {one}" for one in concerned.last_lines()),
        )


def _tell_how_to_go_on(
    console: Console, environment: Environment, folder: DemoFolder, processes: Sequence[int]
) -> None:
    settings, python = shlex.quote(str(folder.settings)), shlex.quote(sys.executable)
    annotations = f"{python} {shlex.join(environment.annotations_arguments())}"
    url, token, photo = environment.service_url, environment.token(), shlex.quote(str(ASTRONAUT))
    log = f"{environment.annotations_url}/_log"
    console.act("Everything goes on running")
    console.say(f"page:                 {url}/  (sign in there with one of the tokens)")
    console.say(f"administrator, a day: {environment.token(is_admin=True)}")
    console.say(f"user, for a day:      {token}")
    console.say(f"curl:                 curl -H 'Authorization: Bearer {token}' -F file=@{photo} {url}/detect")
    console.say(f"annotations service:  {environment.annotations_url}  (what has arrived: {log})")
    console.say(f"files and logs:       {folder.path}")
    console.say("In the checkout:")
    console.say(f"commands:             (set -a; . {settings}; {python} -m flask outbox status)")
    console.say(f"an outage:            kill {processes[-1]}")
    console.say(f"its end:              (. {settings}; ANNOTATIONS_SECRET=$JWT_SECRET_KEY exec {annotations})")
    console.say(f"stop:                 kill {' '.join(map(str, processes))}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/demo",
        description="The service under gunicorn beside a reference annotations service: uploads become detections and"
        " statuses that arrive, through an outage too. Settings of the environment are not heeded.",
    )
    paths: dict[str, Any] = {"type": lambda path: Path(path).absolute(), "metavar": "FILE"}
    add = parser.add_argument
    add("--out", default=ROOT / "var" / "demo.png", help="the picture with the boxes (default: var/demo.png)", **paths)
    add("--model", help="weights to detect with (YOLO's ONNX) instead of the built-in ones", **paths)
    add("--resumable", action="store_true", help="instead: a large upload that survives three cuts and a kill -9")
    add(
        "--keep",
        nargs="?",
        const=ROOT / "var" / "demo",
        help="leave everything running, with its files in FOLDER (default: var/demo in the checkout), and tell how the"
        " page, the API and the commands are tried on it",
        **paths | {"metavar": "FOLDER"},
    )
    options = parser.parse_args(arguments)
    if not can_be_written(options.out):
        parser.error(f"--out {options.out.name}: no kind of picture has this ending")
    return options


if __name__ == "__main__":
    sys.exit(main())
