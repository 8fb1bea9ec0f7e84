"""The regular files under a folder, found without opening any, and the files a table names."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotrain.errors import AutotrainError

IMAGES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
AUDIO = frozenset((".wav", ".flac", ".ogg", ".opus", ".mp3"))
FEATURES = frozenset((".npz",))
TEXT_TABLES = frozenset((".csv", ".tsv"))
TABLES = TEXT_TABLES | {".parquet"}

LITTER = frozenset(("__macosx", "thumbs.db", "desktop.ini", "__pycache__"))
RUN_FILES = frozenset(("plan.toml", "events.jsonl"))
FAULTY_SHARE = 0.10


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: path relative to the root with `/`, size in bytes, lower-case suffix."""

    name: str
    size: int
    suffix: str


@dataclass(frozen=True)
class Listing:
    """All files under `root`, sorted by name; `skipped` is (name, why), never opened."""

    root: Path
    files: tuple[File, ...]
    folders: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    def having(self, suffixes: Iterable[str]) -> list[File]:
        """The files with one of these suffixes."""
        return [file for file in self.files if file.suffix in suffixes]

    def filled(self, suffixes: Iterable[str]) -> list[File]:
        """The same without files of zero bytes."""
        return [file for file in self.having(suffixes) if file.size]

    def path(self, name: str) -> Path:
        """The full path of a listed name."""
        return self.root / name

    def top(self) -> str:
        """The folder below the root that holds all files: a corpus is often unpacked into one."""
        folders = {file.name.rpartition("/")[0] for file in self.files}
        return os.path.commonpath(folders).replace(os.sep, "/") if all(folders) else ""

    def in_top(self, suffixes: Iterable[str]) -> list[File]:
        """The files with one of these suffixes that lie in `top()`, not in a folder below."""
        top = self.top()
        return [file for file in self.having(suffixes) if file.name.rpartition("/")[0] == top]

    def suffix_text(self) -> str:
        """`12 .wav, 3 .txt and 2 without suffix`: the most frequent first."""
        counts = Counter(file.suffix or "without suffix" for file in self.files)
        return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(6))


def list_files(root: Path) -> Listing:
    """Walk a folder. Raises AutotrainError where it is missing, a file, unreadable or empty.

    A folder is entered once, and none above the root, however links lead there. The folder of
    a run of ours (`plan.toml` beside `events.jsonl`) is not data.
    """
    root = Path(root)
    files: list[File] = []
    folders: list[str] = []
    skipped: list[tuple[str, str]] = []
    seen = {_identity(_folder_stat(root))}
    seen |= {_identity(os.stat(above)) for above in root.resolve().parents}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for name, status, problem in _entries(root, folder):
            if status is None:
                skipped.append((name, problem))
            elif stat.S_ISREG(status.st_mode):
                files.append(File(name, status.st_size, os.path.splitext(name)[1].lower()))
            elif not stat.S_ISDIR(status.st_mode):
                skipped.append((name, "not a regular file"))
            elif _identity(status) in seen:
                skipped.append((name, "a link to a folder that is read already, or lies above"))
            else:
                seen.add(_identity(status))
                folders.append(name)
                waiting.append(name)
    if not files and not skipped:
        raise AutotrainError(f"{root}: an empty folder", "name the folder that holds the data")
    files.sort(key=lambda file: file.name)
    return Listing(root, tuple(files), tuple(sorted(folders)), tuple(sorted(skipped)))


def _folder_stat(root: Path) -> os.stat_result:
    try:
        status = os.stat(root)
        if not stat.S_ISDIR(status.st_mode):
            raise AutotrainError(
                f"{root}: a file, where a folder was expected", "name the folder that holds it"
            )
        with os.scandir(root):
            return status
    except FileNotFoundError:
        raise AutotrainError(f"{root}: no such folder", "check the path") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise AutotrainError(f"{root}: {why}", "name a folder you may read") from None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _entries(root: Path, folder: str) -> list[tuple[str, os.stat_result | None, str]]:
    """(name relative to root, status of what a link leads to or None, why None), sorted."""
    found: list[tuple[str, os.stat_result | None, str]] = []
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in LITTER:
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    found.append((name, _status(entry), ""))
                except OSError as error:
                    link = "a link that leads nowhere" if entry.is_symlink() else error.strerror
                    found.append((name, None, link or "unreadable"))
    except OSError as error:
        found.append((folder, None, error.strerror or "unreadable"))
    here = {name.rpartition("/")[2] for name, _, _ in found}
    return [] if here >= RUN_FILES else sorted(found, key=lambda item: item[0])


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    status = entry.stat()
    if stat.S_ISDIR(status.st_mode) and not status.st_ino:
        return os.stat(entry.path)  # Windows leaves the inode out of a listing
    return status


@dataclass(frozen=True, slots=True)
class Absent:
    """A file of the data that cannot be there for training: missing, empty, or there already.
    `split`: as its table names it."""

    name: str
    problem: str
    split: str = ""


class Index:
    """Finds the listed file that a table means: `001`, `001.wav` or `clips/001.wav`.

    Only listed files are ever found, so `../secret` and absolute paths are missing files. Names
    are compared in Unicode's NFC: a Mac writes those of files in another form than texts have.
    """

    def __init__(self, listing: Listing, suffixes: frozenset[str]) -> None:
        self.suffixes = suffixes
        self.by_stem: defaultdict[str, list[File]] = defaultdict(list)
        for file in listing.having(suffixes):
            self.by_stem[self._bare(file.name).rpartition("/")[2]].append(file)
        self.taken: dict[str, tuple[str, Hashable]] = {}

    def _bare(self, name: str) -> str:
        name = unicodedata.normalize("NFC", name)
        stem, suffix = os.path.splitext(name)
        return stem if suffix.lower() in self.suffixes else name

    def take(
        self, name: str, where: str, said: Hashable, *, folder: str = "", split: str = ""
    ) -> File | Absent | None:
        """The file that a row means, for no other row; None: the same was `said` of it before.

        `where`: the row, for a person; `split`: as it names it. Rows that say different things of
        one file would be on both sides of a split: the first counts.
        """
        found = self.find(name, folder)
        if found is None:
            return Absent(name, f"missing; {where} names it", split)
        if not found.size:
            return Absent(found.name, "an empty file", split)
        first, same = self.taken.setdefault(found.name, (where, said))
        if first == where:
            return found
        if same == said:
            return None
        return Absent(found.name, f"named twice, by {first} and {where}", split)

    def find(self, name: str, folder: str = "") -> File | None:
        """The file meant; `folder`, the exact suffix and a file with content are preferred."""
        wanted = name.replace("\\", "/").removeprefix("./")
        tail = "/" + self._bare(wanted)
        candidates = self.by_stem.get(tail.rpartition("/")[2], ())
        fitting = [file for file in candidates if ("/" + self._bare(file.name)).endswith(tail)]
        exact, inside = (wanted, f"{folder}/{wanted}"), f"{folder}/"
        return min(
            fitting,
            key=lambda f: (not f.size, f.name not in exact, not f.name.startswith(inside), f.name),
            default=None,
        )


def refuse_absent(
    root: Path, absent: Sequence[Absent], splits: Sequence[str], split: str | None = None
) -> None:
    """Raises AutotrainError where more than a tenth of the files listed are absent.

    `splits`: of each file that is there, train, valid, test or empty. Where one `split` is asked
    for, its files count; where no file is in `valid`, those of `train`: it is held out of them.
    """
    named = {*splits, *(each.split for each in absent)}
    asked = "train" if split == "valid" and "valid" not in named else split
    gone = [each for each in absent if asked is None or each.split in ("", asked)]
    there = [each for each in splits if asked is None or each in ("", asked)]
    listed = len(gone) + len(there)
    if gone and len(gone) > FAULTY_SHARE * listed:
        first = ", ".join(f"{a.name} ({a.problem})" for a in gone[:3])
        raise AutotrainError(
            f"{root}: {len(gone)} of {listed} files are missing, empty or named twice: {first}"
            + (", ..." if len(gone) > 3 else ""),
            f"restore them, or remove them from the table; up to {FAULTY_SHARE:.0%} are skipped",
        )
