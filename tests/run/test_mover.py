"""Batches on their way to the device."""

import pytest
import torch

from autotrain.run.loading.mover import mover


def test_on_a_cpu_a_batch_stays_what_it_is():
    batch = {"x": torch.zeros(3)}
    assert mover(torch.device("cpu"), pin=True)(batch) is batch


def test_other_devices_get_every_tensor():
    """Here the device of no data: what is not a tensor stays."""
    moved = mover(torch.device("meta"), pin=False)({"x": [torch.zeros(3)], "name": "a"})
    assert moved["x"][0].device.type == "meta"
    assert moved["name"] == "a"


@pytest.mark.gpu
def test_on_cuda_batches_arrive_whole_and_the_host_never_waits():
    """Many, each used after its copy and its memory reused behind it."""
    device = torch.device("cuda")
    move, work = mover(device, pin=True), torch.randn(2048, 2048, device=device)
    sums = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(50):
            batch = move((torch.full((512, 512), float(number)), {"y": torch.arange(3), "z": "z"}))
            work = (work @ work).tanh()  # the device is behind, the host ahead
            sums.append(batch[0].sum() + batch[1]["y"].sum())
            del batch
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(sums).tolist() == [512 * 512 * number + 3 for number in range(50)]
