"""How a process becomes one of several that train together, and what of the plan is its own."""

from __future__ import annotations

import os
from contextlib import suppress

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from autotrain.errors import AutotrainError
from autotrain.run.processes.ranks import PATIENCE, Ranks
from autotrain.run.processes.stores import heed_libuv
from autotrain.schema import CUDA_LIKE, Plan


def join() -> Ranks:
    """Take part. Raises AutotrainError where the others cannot be reached."""
    environment = os.environ
    heed_libuv()
    try:
        store, rank, world = next(iter(rendezvous("env://", timeout=PATIENCE)))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store = PrefixStore("autotrain", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    except (RuntimeError, ValueError, KeyError) as error:
        raise AutotrainError(
            f"process {environment.get('RANK')} of {environment.get('WORLD_SIZE')} cannot reach "
            f"the others: {str(error).partition(chr(10))[0]}",
            "start all of them with `autotrain run PLAN --nproc N`, or with torchrun",
        ) from error
    local = (
        int(environment.get("LOCAL_RANK", "0")),
        int(environment.get("LOCAL_WORLD_SIZE", "1")),
    )
    return Ranks(store, rank, world, local)


def leave(ranks: Ranks) -> None:
    """The inverse of `join`."""
    ranks.drop()
    with suppress(Exception):
        dist.destroy_process_group()


def share_of(plan: Plan, ranks: Ranks) -> Plan:
    """The plan as one process carries it out: its device, its part of the cores and workers."""
    device, loader, count = plan.device, plan.loader, ranks.local_world
    if device.kind == "mps":
        raise AutotrainError(
            f"{ranks.world} processes cannot train together on mps: no collectives there",
            "one process, or device.kind = 'cpu'",
        )
    index = device.index + ranks.local_rank if device.kind in CUDA_LIKE else device.index
    mine = {"index": index, "threads": max(device.threads // count, 1)}
    workers = -(-loader.workers // count)
    return plan.model_copy(
        update={
            "device": device.model_copy(update=mine),
            "loader": loader.model_copy(update={"workers": workers}),
        }
    )
