"""What a machine that loses its power leaves: files as strace saw them written, and only what was synced of them.

`Disk` replays a trace of `strace -f -y -xx`. Of a file it keeps the content of its last sync, of a folder the names of
its last sync: what was written since is taken for lost with the kernel's cache and the drive's.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,link,linkat,unlink,unlinkat,rename,renameat,renameat2"

_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)", re.DOTALL)
_UNFINISHED, _RESUMED = " <unfinished ...>", re.compile(r"<\.\.\. \w+ resumed>")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_FILE, _TEXT = re.compile(r"\d+<([^>]*)>"), re.compile(r'"([^"]*)"')


def calls(trace: str) -> Iterator[tuple[str, str, int]]:
    """Each call that succeeded: its name, its arguments as strace writes them, and its result."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, told = line.partition(" ")
        told = told.strip()
        if told.endswith(_UNFINISHED):
            begun[thread] = told.removesuffix(_UNFINISHED)
            continue
        if resumed := _RESUMED.match(told):
            told = begun.pop(thread) + told[resumed.end() :]
        if (found := _CALL.match(told)) and not found[3].startswith("-"):
            yield found[1], found[2], int(found[3])


class Disk:
    """The files below `folder`. What lies there at the beginning is taken for synced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, int] = {}
        self._content: dict[int, bytearray] = {}
        self._synced_content: dict[int, bytes] = {}
        self._new = itertools.count()
        for path in folder.rglob("*"):
            if path.is_file():
                self._content[self._of(path)] = bytearray(path.read_bytes())
        self._synced_content = {file: bytes(content) for file, content in self._content.items()}
        self._synced_names = dict(self._names)

    def apply(self, call: str, arguments: str, result: int) -> bool:
        """Do what the call did; returns whether it was a sync of something here."""
        paths = [path for path in _paths(arguments) if path.is_relative_to(self._folder)]
        if not paths:
            return False
        path = paths[0]
        match call:
            case "write":
                self._write(path, written(arguments)[:result], None)
            case "pwrite64":
                self._write(path, written(arguments)[:result], _last_number(arguments))
            case "ftruncate":
                self._truncate(path, _last_number(arguments))
            case "fsync" | "fdatasync":
                self._sync(path)
                return True
            case _:
                self._rename(call, path, paths[-1], arguments)
        return False

    def _rename(self, call: str, path: Path, other: Path, arguments: str) -> None:
        match call:
            case "openat":
                if "O_CREAT" in arguments:
                    self._of(path)
            case "link" | "linkat":
                self._names[other] = self._of(path)
            case "unlink" | "unlinkat":
                self._names.pop(path, None)
            case "rename" | "renameat" | "renameat2":
                self._names[other] = self._names.pop(path)

    def leave(self, folder: Path) -> None:
        """Write what a power loss would leave now."""
        for path, file in self._synced_names.items():
            target = folder / path.relative_to(self._folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._synced_content.get(file, b""))

    def _of(self, path: Path) -> int:
        """The file of that name, which is a new one where the name is new."""
        if path not in self._names:
            self._names[path] = next(self._new)
        return self._names[path]

    def _write(self, path: Path, data: bytes, offset: int | None) -> None:
        file = self._of(path)
        content = self._content.setdefault(file, bytearray())
        begin = len(content) if offset is None else offset  # whoever writes without an offset appends
        content.extend(bytes(max(0, begin - len(content))))
        content[begin : begin + len(data)] = data

    def _truncate(self, path: Path, size: int) -> None:
        content = self._content.setdefault(self._of(path), bytearray())
        content.extend(bytes(max(0, size - len(content))))
        del content[size:]

    def _sync(self, path: Path) -> None:
        if path in self._names:
            file = self._names[path]
            self._synced_content[file] = bytes(self._content.get(file, b""))
            return
        here = {name: file for name, file in self._names.items() if name.parent == path}
        kept = {name: file for name, file in self._synced_names.items() if name.parent != path}
        self._synced_names = kept | here


def _unescaped(text: str) -> bytes:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1")


def _paths(arguments: str) -> list[Path]:
    """The files that a call is about, by its descriptors or by its texts."""
    is_by_name = arguments.startswith(("AT_FDCWD", '"'))
    found = (_TEXT if is_by_name else _FILE).findall(arguments)
    return [Path(_unescaped(path).decode(errors="replace").removesuffix(" (deleted)")) for path in found]


def _last_number(arguments: str) -> int:
    return int(arguments.rpartition(",")[2])


def written(arguments: str) -> bytes:
    """What a call was given to write."""
    [text] = _TEXT.findall(arguments)
    return _unescaped(text)
