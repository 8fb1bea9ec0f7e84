"""In how many sizes batches come, where samples differ: few, if a collate rounds them up."""

from __future__ import annotations

from contextlib import suppress

from autotrain.batches import tensors_in
from autotrain.probe.findings import spread
from autotrain.probe.lengths import Lengths
from autotrain.task import Task

# So many samples are collated one by one, or as many as this allows; of fewer nothing is said.
_COLLATED, _SECONDS, _FEWEST = 40, 1.0, 12


def sizes(task: Task, lengths: Lengths | None, seconds: float) -> int:
    """So many sizes, if most of them came up more than once; 0: more than that, or not known.

    `seconds`: of loading one sample.
    """
    many = min(_COLLATED, int(_SECONDS / max(seconds, 1e-6)))
    found = [size for size in (_size(task, index) for index in _some(task, lengths, many)) if size]
    if len(found) < _FEWEST:
        return 0
    several = len({*found})
    return several if 2 * several <= len(found) else 0


def _some(task: Task, lengths: Lengths | None, many: int) -> list[int]:
    """Samples spread over all lengths, or else over the dataset."""
    if lengths is None:
        return spread(range(len(task.train)), many)
    places = spread(range(len(lengths.indices)), many)
    return [int(index) for index in lengths.indices[places]]


def _size(task: Task, index: int) -> tuple[int, ...]:
    """The shape of the largest tensor of that sample's own batch: of the others' (targets, how long
    they are) layers that need code of their own see little. None where it cannot be had."""
    from torch.utils.data import default_collate

    with suppress(Exception):  # a run heals a bad sample, and tells
        found = tensors_in((task.collate or default_collate)([task.train[index]]))
        return tuple(max(found, key=lambda tensor: tensor.numel()).shape)
    return ()
