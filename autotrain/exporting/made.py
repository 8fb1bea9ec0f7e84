"""What an export came to, and the file that takes its place only when it is whole."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autotrain import files
from autotrain.errors import AutotrainError, one_line
from autotrain.exporting.agreement import Agreement


@dataclass(frozen=True)
class Port:
    """An input: its name, type, and sizes; one that may vary by its name."""

    name: str
    dtype: str
    shape: list[int | str]

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor, axes: Mapping[int, str]) -> Port:
        """That of a tensor which was given."""
        shape = [axes.get(dimension, size) for dimension, size in enumerate(tensor.shape)]
        return cls(name, str(tensor.dtype).removeprefix("torch."), shape)

    def __str__(self) -> str:
        return f"{self.name} [{', '.join(map(str, self.shape))}] {self.dtype}"


@dataclass(frozen=True)
class Made:
    """An export, the exporter that made it, what it is given, and how it agreed with the model.

    `narrowed`: it takes fewer sizes than the model does. `more`: what else is worth telling.
    """

    way: str
    inputs: list[Port]
    agreed: Agreement
    narrowed: bool = False
    more: dict[str, Any] = field(default_factory=dict)


@contextmanager
def in_place_of(target: Path) -> Iterator[Path]:
    """Within, a path to make the file at. It becomes `target` on leaving, on the disk as a whole;
    where an error leaves, ^C too, nothing is left of it, and what was there before stays.

    Raises AutotrainError where the folder cannot be written, or is full.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        files.make_folder(target.parent)
        aside.mkdir()
        yield aside / target.name
        with open(aside / target.name, "rb+") as made:
            files.sync(made.fileno())
        os.replace(aside / target.name, target)
        files.sync_folder(target.parent)
    except OSError as error:
        raise AutotrainError(
            f"{target}: {error.strerror or error}", "free space, or -o FILE in another place"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def reason(error: BaseException) -> str:
    """What went wrong at the bottom of it, in a line: exporters wrap errors in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip(" -") for line in str(error).strip().splitlines()] or [""]
    # A line that ends in a colon says that the next one says it.
    said = next((line for line in lines if line and not line.endswith(":")), lines[0])
    return one_line(f"{type(error).__name__}: {said}", 300)


@contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing is heard of what exporters print: whether it came out well is checked."""
    known = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with open(os.devnull, "w") as nowhere, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(known)
