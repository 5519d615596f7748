"""Packages made up by the tests: their wheels, an index of them on disk, and lock files that name them by hash."""

import base64
import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Package:
    """A package of one module of its own name (with `_` for `-`), in which `VERSION` is its version.

    `requires` are as in Requires-Dist, `scripts` the commands that call the module's `main`, whose body is `body`.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    body: str = "pass"

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}-py3-none-any.whl"

    def files(self) -> Mapping[str, str]:
        """What its wheel holds besides the record."""
        about = f"{self.name}-{self.version}.dist-info"
        metadata = [f"Name: {self.name}", f"Version: {self.version}"]
        metadata += [f"Provides-Extra: {extra}" for extra in self.extras]
        metadata += [f"Requires-Dist: {requirement}" for requirement in self.requires]
        scripts = "".join(f"{script} = {self.name}:main\n" for script in self.scripts)
        called = "if __name__ == '__main__':\n    main()\n"
        return {
            f"{self.name}.py": f"VERSION = {self.version!r}\n\n\ndef main():\n    {self.body}\n\n\n{called}",
            f"{about}/METADATA": "\n".join(["Metadata-Version: 2.1", *metadata, ""]),
            f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}/entry_points.txt": f"[console_scripts]\n{scripts}",
        }


def write_wheel(folder: Path, package: Package) -> Path:
    """Write the package's wheel into a folder."""
    wheel, about = folder / package.file_name, f"{package.name}-{package.version}.dist-info"
    record = ""
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in package.files().items():
            archive.writestr(name, content)
            record += f"{name},sha256={_record_hash(content.encode())},{len(content.encode())}\n"
        archive.writestr(f"{about}/RECORD", f"{record}{about}/RECORD,,\n")
    return wheel


@dataclass
class Index:
    """A package index as pip reads it from a folder."""

    folder: Path
    _hashes: dict[Package, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def publish(self, *packages: Package) -> None:
        """Add releases."""
        for package in packages:
            wheel = write_wheel(self._page_folder(package.name), package)
            self._hashes[package] = self._list(wheel)

    def publish_wheel(self, wheel: Path) -> None:
        """Add a release that others made."""
        name = wheel.name.partition("-")[0]
        self._list(Path(shutil.copy(wheel, self._page_folder(name))))

    def lock(self, *packages: Package) -> str:
        """Return the text of a lock file that names these releases."""
        return "".join(f"{one.name}=={one.version} \\\n    --hash=sha256:{self._hashes[one]}\n" for one in packages)

    def _page_folder(self, name: str) -> Path:
        folder = self.folder / canonicalize_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _list(self, wheel: Path) -> str:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        with (wheel.parent / "index.html").open("a") as page:
            page.write(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a><br>\n')
        return digest


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
