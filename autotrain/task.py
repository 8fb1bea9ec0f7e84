"""The contract with user code: what a task file returns, and how one is loaded.

A task file defines `task(data, **options) -> Task`. A template is such a file too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from autotrain.batches import map_tensors
from autotrain.errors import AutotrainError, starved
from autotrain.files import read_regular
from autotrain.heldout import held_out

if TYPE_CHECKING:
    import torch

__all__ = [
    "Loss",
    "Portable",
    "Sums",
    "Task",
    "file_sha256",
    "hold_out",
    "load_module",
    "load_task",
    "map_tensors",
    "precise",
    "subset",
    "user_error",
]

# No one writes a task file of more.
CODE_BYTES = 16 << 20
Sums = dict[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss as a sum and the weight it was summed over.

    `total`: scalar tensor, the SUM over the `weight` items (samples, frames or tokens) of
    this micro-batch. `weight`: how many, a number or a scalar tensor, 0 or more. `parts`: named
    scalar tensors to log, sums over the same items. `mixes`: the loss ties samples together
    (contrastive, say), so its micro-batch must not be cut.
    """

    total: torch.Tensor
    weight: torch.Tensor | float
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mixes: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A model, its data and its loss: all that autotrain needs to know of a person's work.

    `model`: called without arguments, to plan and to run. `train`, `valid`: map-style datasets
    (`valid` None: a split of `train` is made). `collate`: list of samples -> batch (None:
    torch's default). `loss`: (model, batch) -> Loss. `measure`: (model, batch) -> {name:
    (sum, count)}. `length`: index -> cost of a training sample without loading it.
    `monitor`: `loss` or a name that `measure` returns; `better`: which way is better.

    For what comes after: `test`, a dataset like `valid` that training never sees. `predict`:
    (model in eval mode, what the user typed, a folder where it may write files) -> a JSON-able
    dict. `confusion`: (model, batch) -> [classes, classes], how many of each class (row) were
    taken for which (column); `classes`: their names.
    """

    model: Callable[[], torch.nn.Module]
    train: Any
    loss: Callable[[torch.nn.Module, Any], Loss]
    valid: Any = None
    collate: Callable[[list[Any]], Any] | None = None
    measure: Callable[[torch.nn.Module, Any], Sums] | None = None
    length: Callable[[int], float] | None = None
    monitor: str = "loss"
    better: Literal["lower", "higher"] = "lower"
    test: Any = None
    predict: Callable[[torch.nn.Module, str, Path], dict[str, Any]] | None = None
    confusion: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.valid is None and getattr(self.train, "for_training_only", False):
            raise AutotrainError(
                f"{type(self.train).__name__} samples are for training: none can be held out",
                "split first: `train, valid = held_out(dataset)` (autotrain.blocks.augment)",
            )
        if getattr(self.test, "for_training_only", False):
            raise AutotrainError(
                f"the task's test dataset: {type(self.test).__name__} samples are for training",
                "test on samples as they are: the dataset before it was augmented",
            )
        for name in ("predict", "confusion"):
            if not (getattr(self, name) is None or callable(getattr(self, name))):
                raise AutotrainError(
                    f"the task's {name} is a {type(getattr(self, name)).__name__}, not a function",
                    "docs/own-model.md says what it is given and what it answers",
                )

    @classmethod
    def classification(
        cls,
        *,
        model: Callable[[], torch.nn.Module],
        train: Any,
        valid: Any = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        **more: Any,
    ) -> Task:
        """Samples are (input, class index, or mixup's probabilities); the model returns logits.

        `class_weights`: how much a sample of each class counts. One of index -100 counts nowhere.
        """
        from autotrain.supervised import Classification

        figures = Classification(label_smoothing, class_weights)
        usual: dict[str, Any] = {"measure": figures.measure, "confusion": figures.confusion}
        usual |= {"monitor": "accuracy", "better": "higher"}
        return cls(model=model, train=train, valid=valid, loss=figures.loss, **(usual | more))

    @classmethod
    def regression(
        cls, *, model: Callable[[], torch.nn.Module], train: Any, valid: Any = None, **more: Any
    ) -> Task:
        """Samples are (input, target); squared error summed over the target's elements."""
        from autotrain.supervised import squared_error

        return cls(model=model, train=train, valid=valid, loss=squared_error, **more)


def precise(values: torch.Tensor) -> torch.Tensor:
    """In fp32 at least: half precision loses small probabilities."""
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))


def hold_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of `count` samples as (train, valid): a split that depends on the seed alone.

    At least one sample stays on each side. Raises AutotrainError for fewer than two samples.
    """
    if count < 2:
        raise AutotrainError(
            f"{count} sample cannot be split into training and validation",
            "add samples, or give the task a `valid` dataset",
        )
    keyed = sorted(range(count), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
    held = held_out(count, share)
    return sorted(keyed[held:]), sorted(keyed[:held])


def file_sha256(path: Path) -> str:
    """SHA-256 of a task file. Raises AutotrainError where it cannot be read."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, CODE_BYTES)
    except OSError as error:
        raise AutotrainError(f"{path}: {error.strerror}", "name an existing task file") from None


_loaded: dict[Path, bytes] = {}


def load_module(path: Path) -> ModuleType:
    """The task file as a module, once per path and content; its folder joins `sys.path`.

    Raises AutotrainError with the file and line where its import fails.
    """
    path = path.resolve()
    return _module(path, _read(path))


def _module(path: Path, source: bytes) -> ModuleType:
    """Run `source` as the file `path`: what was hashed is what runs, never a stale .pyc."""
    digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:12]
    name = re.sub(r"\W", "_", f"autotrain_task_{path.stem}_{digest}")
    _loaded[path] = source
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise AutotrainError(f"{path}: not a Python file", "a task file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise user_error(path, error) from error
    return module


def load_task(path: Path, data: str | None, options: Mapping[str, Any]) -> Task:
    """Call `task(data, **options)` of a task file. Raises AutotrainError, naming file and line.

    `data` becomes a Path, or stays None.
    """
    function = getattr(load_module(path), "task", None)
    if not callable(function):
        raise AutotrainError(
            f"{path}: defines no function `task`",
            "write `def task(data, **options): return Task(...)`",
        )
    _check_options(path, function, options)
    try:
        made = function(None if data is None else Path(data), **options)
    except AutotrainError:
        raise
    except Exception as error:
        raise user_error(path, error) from error
    if not isinstance(made, Task):
        raise AutotrainError(
            f"{path}: task() returned {type(made).__name__}, not autotrain.Task", "return Task(...)"
        )
    return made


def _check_options(path: Path, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters][1:]
    for key in options:
        if key not in known:
            raise AutotrainError(
                f"{path}: task() takes no option {key!r}",
                f"its options: {', '.join(known) or 'none'}; accept more with **options",
            )


def user_error(path: Path, error: Exception, during: str = "") -> AutotrainError:
    """`file:line: what went wrong`: the deepest line of the task's own folder that took part."""
    if (no_room := starved(error)) is not None:
        return no_room
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if Path(f.filename).parent == path.resolve().parent]
    where, line, text = str(path), None, str(error)
    if mine:
        where, line = mine[-1].filename, mine[-1].lineno
    if isinstance(error, SyntaxError):
        text = error.msg
        if error.filename and Path(error.filename).is_file():
            where, line = error.filename, error.lineno
    place = f"{where}:{line}" if line else where
    return AutotrainError(
        f"{place}: {during}{type(error).__name__}: {text}", "the error is in the task's own code"
    )


class Portable:
    """An object of a task file that survives pickling into a worker that started by spawn.

    The worker first runs the task file's source, then unpickles what came from it. The source
    travels along: a file edited during a run does not change, or break, its later workers.
    """

    def __init__(self, value: Any, path: Path) -> None:
        self.value = value
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        path = self.path.resolve()
        source = _loaded[path] if path in _loaded else _read(path)
        return _restore, (str(path), source, pickle.dumps(self.value))


def _restore(path: str, source: bytes, payload: bytes) -> Portable:
    _module(Path(path), source)
    return Portable(pickle.loads(payload), Path(path))


def subset(dataset: Any, indices: Sequence[int]) -> Any:
    """A map-style view of some samples of a dataset."""
    from torch.utils.data import Subset

    return Subset(dataset, list(indices))
