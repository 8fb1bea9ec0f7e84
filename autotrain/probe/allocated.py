"""What torch's CPU allocator really gave out: the most bytes alive at once in a stretch of code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def most_alive(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    run: Callable[[], object],
    averaged: Iterable[torch.Tensor] = (),
) -> int:
    """The most bytes of tensors alive while `run` runs, by the allocator's own account.

    The profiler reports every allocation and release; what is alive before is the model's
    parameters, buffers and gradients, the optimizer's states and averaged weights. A batch that
    shares memory with numpy is not the allocator's. Slows a step down 2 to 20 times.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    entries = optimizer.state_dict()["state"].values()
    states = [value for each in entries for value in each.values() if torch.is_tensor(value)]
    weights = [*model.parameters(), *model.buffers()]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    held = _bytes([*weights, *gradients, *states, *averaged])
    on_cpu = [ProfilerActivity.CPU]
    with profile(activities=on_cpu, profile_memory=True, acc_events=True) as seen:
        run()
    assert seen.profiler is not None
    results: Any = seen.profiler.kineto_results
    events = [e for e in results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return held + most


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of their storages, each counted once."""
    return sum({(s := t.untyped_storage()).data_ptr(): s.nbytes() for t in tensors}.values())
