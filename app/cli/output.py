"""Output of commands: results on standard output as a table or one JSON document, everything else on standard error."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from app.process import logs

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")

PIPED_WIDTH = 10_000
READABLE_WIDTH = 20
BAR_WIDTH = 24
LABEL_COLUMN = Column(no_wrap=True, overflow="ellipsis", max_width=36)


def show_json(document: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def stream_json(name: str, items: Iterable[Any], rest: Callable[[], dict[str, Any]]) -> None:
    """Print one JSON document whose list `name` is written item by item; `rest` gives the other members at the end."""
    click.echo(f'{{\n  "{name}": [', nl=False)
    separator = "\n"
    for item in items:
        click.echo(f"{separator}    {json.dumps(item, ensure_ascii=False)}", nl=False)
        separator = ",\n"
    click.echo("\n  ]", nl=False)
    for key, value in rest().items():
        click.echo(f",\n  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}", nl=False)
    click.echo("\n}")


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    optional: Sequence[str] = (),
    title: str | None = None,
    err: bool = False,
) -> None:
    """Print a table, on standard error with `err`.

    On a terminal only the last column wraps. If the others are too wide, columns of `optional` are omitted, first ones
    first, with a note; if that is not enough, each row is printed as a block with one column per line. When piped, each
    row is one line of any length.
    """
    console = Console(stderr=err, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=err, highlight=False, emoji=False, width=PIPED_WIDTH)
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    omitted = _omitted(columns, cells, optional, console.width)
    if omitted:
        note(f"Omitted for width: {', '.join(omitted)}; --json prints all columns.")
        cells = [[cell for column, cell in zip(columns, row, strict=True) if column not in omitted] for row in cells]
        columns = [column for column in columns if column not in omitted]
    if _minimum_width(columns, cells) > console.width:
        content = _blocks(columns, cells)
    else:
        content = Table(box=None, pad_edge=False, show_header=any(columns))
        for number, column in enumerate(columns):
            content.add_column(column, no_wrap=number < len(columns) - 1, overflow="fold")
        for row in cells:
            content.add_row(*row)
    if title:
        console.print(title, markup=False)
    console.print(content, markup=False)


def _minimum_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the width below which the table cannot be read."""
    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    return sum(widths[:-1]) + 2 * len(widths[:-1]) + min(widths[-1], READABLE_WIDTH)


def _omitted(
    columns: Sequence[str], rows: Sequence[Sequence[str]], optional: Sequence[str], width: int
) -> Sequence[str]:
    """Return the columns to omit: as few of `optional` as needed, or none if even all are not enough."""
    for count in range(len(optional) + 1):
        shown = [number for number, column in enumerate(columns) if column not in optional[:count]]
        rest = [[row[number] for number in shown] for row in rows]
        if _minimum_width([columns[number] for number in shown], rest) <= width:
            return optional[:count]
    return ()


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    blocks = Table(box=None, pad_edge=False, show_header=False)
    blocks.add_column(no_wrap=True)
    blocks.add_column(overflow="fold")
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            if cell:
                blocks.add_row(column, cell)
        blocks.add_row()
    return blocks


def printable(text: str) -> str:
    """Return the text on one line, without characters that move a terminal's cursor or cannot be encoded."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def note(text: str) -> None:
    """Print progress or a warning on standard error."""
    click.echo(text, err=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function to call with the amount done and the total, None if unknown.

    On a terminal it shows a bar, with warnings as sentences above it. When standard error is piped, there is no bar and
    logs are unchanged.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False, table_column=LABEL_COLUMN),
        BarColumn(BAR_WIDTH),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    if bar.disable:
        yield lambda _done, _total: None
        return
    with bar, logs.in_words(_above(console)):
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _above(console: Console) -> Callable[[str], None]:
    """Return a function that prints above the bar, each text once however often it is repeated."""
    printed: set[str] = set()

    def say(text: str) -> None:
        if text not in printed:
            printed.add(text)
            console.print(text, style="yellow", markup=False, highlight=False)

    return say
