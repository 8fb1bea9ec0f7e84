"""The contract with user code: what a task file returns, and how one is loaded.

A task file defines `task(data, **options) -> Task`. A template is such a file too.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autotrain.batches import map_tensors
from autotrain.errors import AutotrainError
from autotrain.heldout import held_out
from autotrain.usercode import Portable, file_sha256, load_module, user_error

if TYPE_CHECKING:
    import torch

__all__ = [
    "Kept",
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

KEPT = "kept"  # the parameter of task() by which a run's facts come back
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
class Kept:
    """What a task is given back to use a model that it trained: `task(data, kept=Kept(...))`.

    `facts`: as its Task told them then, and its model is to be the one of then, whatever is in the
    data now. `split`: the samples that are asked for ("train", "valid" or "test"): the other sets
    may be empty, and their files gone. None: no samples are; `data` is None too, and `train` a few
    invented ones of the right form, on which an export is checked.
    """

    facts: dict[str, Any]
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A model, its data and its loss: all that autotrain needs to know of a person's work.

    `model`: called without arguments, to plan and to run. `train`, `valid`: map-style datasets
    (`valid` None: a split of `train` is made). `collate`: list of samples -> batch (None:
    torch's default). `loss`: (model, batch) -> Loss. `measure`: (model, batch) -> {name:
    (sum, count)}. `length`: index -> cost of a training sample without loading it; `valid_length`
    of one of `valid` (where they are held out of `train`, `length` tells).
    `monitor`: `loss` or a name that `measure` returns; `better`: which way is better.

    For what comes after: `test`, a dataset like `valid` that training never sees. `predict`:
    (model in eval mode, what the user typed, a folder where it may write files) -> a JSON-able
    dict. `confusion`: (model, batch) -> [classes, classes], how many of each class (row) were
    taken for which (column); `classes`: their names. `export`: (model, batch) -> (a module, what it
    is given): what `autotrain export` makes of the model (None: itself, as the loss calls it).

    `facts`: what model and `predict` need to know of the data, JSON-able (units, class names,
    sizes); it is in every checkpoint, and comes back as `Kept`.
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
    export: Callable[[torch.nn.Module, Any], tuple[torch.nn.Module, tuple[Any, ...]]] | None = None
    facts: Mapping[str, Any] | None = None
    valid_length: Callable[[int], float] | None = None

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
        for name in ("predict", "confusion", "export", "valid_length"):
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


def load_task(
    path: Path, data: str | None, options: Mapping[str, Any], kept: Kept | None = None
) -> Task:
    """Call `task(data, **options)` of a task file, with `kept=` where a model is to be used again.

    `data` becomes a Path, or stays None. Raises AutotrainError, naming file and line.
    """
    function = getattr(load_module(path), "task", None)
    if not callable(function):
        raise AutotrainError(
            f"{path}: defines no function `task`",
            "write `def task(data, **options): return Task(...)`",
        )
    _check_options(path, function, options)
    more = {} if kept is None else {"kept": kept}
    try:
        made = function(None if data is None else Path(data), **options, **more)
    except AutotrainError:
        raise
    except Exception as error:
        raise user_error(path, error) from error
    if not isinstance(made, Task):
        raise AutotrainError(
            f"{path}: task() returned {type(made).__name__}, not autotrain.Task", "return Task(...)"
        )
    if made.facts is None:
        return made
    return replace(made, facts=_checked_facts(path, function, made.facts))


def _check_options(path: Path, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = _options(function)
    for key in options:
        if known is not None and key not in known:
            raise AutotrainError(
                f"{path}: task() takes no option {key!r}",
                f"its options: {', '.join(known) or 'none'}; accept more with **options",
            )


def _options(function: Callable[..., Any]) -> list[str] | None:
    """The options that `task` names; None where it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.name != KEPT][1:]


def _checked_facts(path: Path, function: Callable[..., Any], facts: Any) -> dict[str, Any]:
    """As they will come back. Raises AutotrainError where they cannot be kept, or given back."""
    if KEPT not in inspect.signature(function).parameters:
        raise AutotrainError(
            f"{path}: its Task has facts, and task() does not take them back",
            "def task(data, *, kept=None, ...): docs/own-model.md says what it is then asked for",
        )
    try:
        made = json.loads(json.dumps(facts, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AutotrainError(
            f"{path}: the task's facts: {error}", "numbers, texts, lists and dicts: tensor.tolist()"
        ) from None
    if not isinstance(made, dict):
        raise AutotrainError(f"{path}: the task's facts are a {type(facts).__name__}, not a dict")
    return made


def subset(dataset: Any, indices: Sequence[int]) -> Any:
    """A map-style view of some samples of a dataset."""
    from torch.utils.data import Subset

    return Subset(dataset, list(indices))
