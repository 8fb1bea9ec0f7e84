"""Batches on their way to the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from autotrain.batches import map_tensors


def mover(device: torch.device, *, pin: bool) -> Callable[[Any], Any]:
    """What brings a batch to the device.

    On CUDA by a stream of its own, so that a copy runs beside the computing that was launched
    before it: the host, which never waits for the device, is ahead by about a micro-batch.
    """
    if device.type == "cpu":
        return lambda batch: batch
    if device.type != "cuda":
        return lambda batch: map_tensors(lambda t: t.to(device, non_blocking=True), batch)
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def move(batch: Any) -> Any:
        copied: list[torch.Tensor] = []

        def copy(tensor: torch.Tensor) -> torch.Tensor:
            # A copy from pageable memory would make the host wait.
            source = tensor.pin_memory() if pin and tensor.device.type == "cpu" else tensor
            copied.append(source.to(device, non_blocking=True))
            return copied[-1]

        computing = torch.cuda.current_stream(device)
        with torch.cuda.stream(side):
            moved = map_tensors(copy, batch)
        computing.wait_stream(side)
        for tensor in copied:
            # Its memory belongs to the side stream and must not be given away while in use here.
            tensor.record_stream(computing)
        return moved

    return move
