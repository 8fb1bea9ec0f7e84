"""A machine's file that somebody wrote by hand: what it leaves out, by stated rules."""

from __future__ import annotations

from typing import Any, get_args

from autotrain.schema import Dtype
from autotrain.units import bytes_from

# docs/machines.md tells of them. What a driver and a desktop keep of a GPU; what other programs
# keep of the RAM; a small operator, as `probe/calibrate.py` assumes it.
FREE_SHARE, GPU_FREE_SHARE = 0.9, 0.95
CPU_OP_SECONDS, GPU_OP_SECONDS = 5e-6, 8e-6
DISK = {"path": "runs", "total_bytes": 200_000_000_000, "free_bytes": 100_000_000_000}


def completed(content: dict[str, Any]) -> dict[str, Any]:
    """The file with what can be assumed. What is there stays; what is malformed too.

    What follows from something malformed is anything valid: the fault is told once.
    """
    machine = {"disk": DISK, **content}
    _assume(machine, "ram_available_bytes", FREE_SHARE, machine.get("ram_total_bytes"))
    if isinstance(machine.get("cpu"), dict):
        cpu = machine["cpu"]
        cores = cpu.get("cores")
        logical = cores if type(cores) is int and cores > 0 else 1
        machine["cpu"] = {"name": "CPU", "logical": logical, **cpu}
    if isinstance(machine.get("devices"), list):
        machine["devices"] = [
            _device(each) if isinstance(each, dict) else each for each in machine["devices"]
        ]
    return machine


def _device(given: dict[str, Any]) -> dict[str, Any]:
    device = dict(given)
    on_cpu = device.get("kind") == "cpu"
    share = FREE_SHARE if on_cpu else GPU_FREE_SHARE
    _assume(device, "free_bytes", share, device.get("total_bytes"))
    if isinstance(device.get("rates"), dict):
        seconds = CPU_OP_SECONDS if on_cpu else GPU_OP_SECONDS
        rates = {"op_seconds": seconds, "source": "datasheet", **device["rates"]}
        device["rates"] = rates
    known = device.get("rates")
    matmul = known.get("matmul") if isinstance(known, dict) else None
    named = matmul if isinstance(matmul, dict) else {}
    device.setdefault("native_dtypes", [name for name in named if name in get_args(Dtype)])
    return device


def _assume(table: dict[str, Any], key: str, share: float, whole: object) -> None:
    size = bytes_from(whole) if isinstance(whole, str) else whole
    table.setdefault(key, int(share * size) if type(size) is int and size > 0 else 0)
