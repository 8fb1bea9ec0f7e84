"""torch, torchaudio and torchvision as they lie on the disk: nothing is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

WHEELS = ("torch", "torchaudio", "torchvision")
_NATIVE = (".so", ".pyd", ".dll", ".dylib")
_SETTING = re.compile(r"^(\w+)(?:\s*:[^=]*)?\s*=\s*(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Wheel:
    """One of them: `version` by its metadata, `build` by its own `version.py`."""

    name: str
    folder: Path
    distribution: Distribution

    @property
    def version(self) -> str:
        """As pip knows it: `2.11.0`, `2.13.0+cpu`."""
        return self.distribution.version

    @property
    def release(self) -> tuple[int, ...]:
        """`2.11.0+cu130` -> (2, 11, 0)."""
        return tuple(int(part) for part in re.findall(r"\d+", self.build.partition("+")[0])[:3])

    @cached_property
    def settings(self) -> dict[str, str]:
        """The assignments of `version.py`."""
        try:
            text = (self.folder / "version.py").read_text(errors="replace")
        except OSError:
            return {}
        return {name: value.strip("'\"") for name, value in _SETTING.findall(text)}

    @property
    def build(self) -> str:
        """With what it was built for: `2.11.0+cu130`."""
        return self.settings.get("__version__", self.version)

    @property
    def cuda(self) -> str | None:
        """`13.0`; None of one that was built without CUDA, or does not say."""
        said = self.settings.get("cuda", "")
        if re.fullmatch(r"\d+\.\d+", said):
            return said
        found = re.search(r"\+cu(\d+)(\d)$", self.build)
        return f"{found[1]}.{found[2]}" if found else None

    @property
    def hip(self) -> str | None:
        """ROCm's version where it was built for that."""
        said = self.settings.get("hip", "None")
        found = re.search(r"\+rocm([\d.]+)", self.build)
        return found[1] if found else None if said == "None" or "(" in said else said

    @property
    def made_for(self) -> str:
        """In words: `CUDA 13.0`, `a CPU`."""
        if self.hip is not None:
            return f"ROCm {self.hip}"
        return f"CUDA {self.cuda}" if self.cuda is not None else "a CPU"

    @property
    def installed(self) -> float:
        """When (seconds since 1970); 0 where nobody knows."""
        record = self._record
        return record.stat().st_mtime if record is not None else 0.0

    @property
    def native(self) -> list[Path]:
        """Its libraries that are there: those beside its code, and in `lib`."""
        places = (self.folder, self.folder / "lib")
        listed = (p for place in places if place.is_dir() for p in place.iterdir())
        return sorted(p for p in listed if _is_native(p.name) and p.is_file())

    @property
    def _record(self) -> Path | None:
        info = f"{self.name}-{self.distribution.version}.dist-info"
        record = Path(str(self.distribution.locate_file(info))) / "RECORD"
        return record if record.is_file() else None


def damaged(found: Distribution) -> list[str]:
    """Its libraries that are gone, or not as long as when they were installed."""
    return [
        path.rpartition("/")[2]
        for path, size in _recorded(found.read_text("RECORD") or "")
        if _size(Path(str(found.locate_file(path)))) != size
    ]


def _recorded(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        path, _, size = [*line.rsplit(",", 2), "", ""][:3]
        if size.isdigit() and _is_native(path.strip('"')):
            yield path.strip('"'), int(size)


def wheel(name: str) -> Wheel | None:
    """The one that `import name` would load; None where there is none."""
    try:
        spec = find_spec(name)
        found = distribution(name)
    except (PackageNotFoundError, ValueError, ImportError):
        return None
    if spec is None or not spec.origin:
        return None
    return Wheel(name, Path(spec.origin).parent, found)


def _is_native(name: str) -> bool:
    return name.endswith(_NATIVE) or ".so." in name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
