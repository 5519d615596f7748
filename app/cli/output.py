"""How commands speak: results on standard output, as a table or one JSON document; all else on standard error."""

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
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def stream_json(name: str, items: Iterable[Any], rest: Callable[[], dict[str, Any]]) -> None:
    """One JSON document on standard output, whose list `name` is written as it comes; `rest` is asked at the end."""
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
    spare: Sequence[str] = (),
    title: str | None = None,
    err: bool = False,
) -> None:
    """A table, on standard error with `err`.

    On a terminal only its last column may take several lines; where the others alone are too wide, the `spare` ones are
    left out, the first of them first, and that is said. If that does not help, each row is shown as a block of its own,
    one column a line. Where it is piped each row is one line, however long.
    """
    console = Console(stderr=err, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=err, highlight=False, emoji=False, width=PIPED_WIDTH)
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    left_out = _left_out(columns, cells, spare, console.width)
    if left_out:
        note(f"Too narrow for {', '.join(left_out)}; --json has all.")
        cells = [[cell for column, cell in zip(columns, row, strict=True) if column not in left_out] for row in cells]
        columns = [column for column in columns if column not in left_out]
    if _narrowest(columns, cells) > console.width:
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


def _narrowest(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The width below which a table cannot be read."""
    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    return sum(widths[:-1]) + 2 * len(widths[:-1]) + min(widths[-1], READABLE_WIDTH)


def _left_out(columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int) -> Sequence[str]:
    """As many of `spare`, from its beginning, as must go; none where even that would not make room."""
    for count in range(len(spare) + 1):
        kept = [number for number, column in enumerate(columns) if column not in spare[:count]]
        rest = [[row[number] for number in kept] for row in rows]
        if _narrowest([columns[number] for number in kept], rest) <= width:
            return spare[:count]
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
    """The text on one line, without what would move a terminal's cursor or cannot be encoded."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def note(text: str) -> None:
    """Progress or a warning, on standard error."""
    click.echo(text, err=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Gives a function to call with what is done and the total, None where that is unknown.

    A bar on a terminal, with warnings above it in words; no bar, and the log as ever, where standard error is piped.
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
    """Says things above a bar; what is said again and again, as at each try through an outage, is said once."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            console.print(text, style="yellow", markup=False, highlight=False)

    return say
