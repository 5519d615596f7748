"""What the demo says: steps as they begin, then what came of them. Coloured on a terminal, plain where it is piped."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import console
from rich.padding import Padding
from rich.table import Table

from app.demo.request_log import Entry

STATUS_NAMES = {1: "New", 2: "AIProcessing", 3: "AIProcessed", 6: "Error"}

_LINE_LIMIT = 400


class Console:
    """`step` is the last step that began; `began` the moment, in seconds since 1970, that arrivals count from."""

    def __init__(self) -> None:
        self._results = console.Console(highlight=False)
        self._messages = console.Console(stderr=True, highlight=False)
        self.step = "begin"
        self.began = 0.0

    def act(self, title: str) -> None:
        self.say("")
        self.say(title, "bold")

    def begin(self, step: str) -> None:
        """Say what is done now; should it fail, this names it."""
        self.step = step
        self.say(f"- {step}")

    def tell(self, text: str) -> None:
        """Say what came of the step."""
        self.say(f"    {text}", "cyan")

    def arrived(self, entries: Iterable[Entry]) -> None:
        """Say what has arrived at the annotations service, and when."""
        for entry in entries:
            status = entry["body"]["mediaStatus"]
            request = f"{entry['method']} {entry['path']}"
            accepted = "" if entry["applied"] else f"  answered {entry['status']}"
            self.say(
                f"    +{entry['at'] - self.began:6.3f} s  arrived: {status} {STATUS_NAMES[status]:12}"
                f"  seq {entry['seq']}  {request}{accepted}",
                "green",
            )

    def detections(self, found: Sequence[dict[str, Any]]) -> None:
        """Show boxes as a table."""
        table = Table("detected", "confidence", "centre x, y", "width x height", box=None, pad_edge=False)
        for one in found:
            table.add_row(
                one["label"],
                f"{one['confidence']:.2f}",
                f"{one['centerX']:.3f}, {one['centerY']:.3f}",
                f"{one['width']:.3f} x {one['height']:.3f}",
            )
        self._results.print(Padding(table, (0, 0, 0, 4), expand=False))

    def end(self, *lines: str) -> None:
        self.say("")
        for line in lines:
            self.say(line, "bold")

    def complain(self, *lines: str) -> None:
        """Say what went wrong, on standard error."""
        for line in lines:
            self._messages.print(line[:_LINE_LIMIT], markup=False, soft_wrap=True)

    def say(self, text: str, style: str | None = None) -> None:
        """One line, however long."""
        self._results.print(text, style=style, markup=False, soft_wrap=True)
