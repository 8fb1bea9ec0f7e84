"""The device, its precision and threads for the length of a run, and what memory it takes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.amp.grad_scaler import GradScaler

from autotrain.errors import AutotrainError
from autotrain.malloc import give_back_at_once, keep_freed
from autotrain.schema import CUDA_LIKE, DeviceSection, Dtype, Plan

# What torch says of it in errors of no type of their own: its CPU allocator, the driver itself,
# libraries that allocate beside the allocator, and MPS.
_RAN_OUT = re.compile(
    r"not enough memory: you tried to allocate|can't allocate memory|std::bad_alloc"
    r"|(CUDA|HIP|MPS backend)\b.*out of memory|(CUBLAS|CUDNN|CUFFT|CUSPARSE)_STATUS_ALLOC_FAILED"
    r"|CUFFT_ALLOC_FAILED"
)
# A step that makes the allocator give its cache back and begin anew waits for the device; now and
# then (a library trying out an algorithm) that is nothing, in every fourth step it is the rule.
_THRASHING = 0.25
_KEPT_KERNELS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY")
# What torch keeps beside, of each kind of operator (ideep's `computation_cache`): whatever is in it
# stays, though oneDNN keeps it no longer. More than a step's come of shapes that change.
_KEPT_BESIDE, _MOST_BESIDE = "LRU_CACHE_CAPACITY", 64
AUTOCAST: dict[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(section: DeviceSection) -> torch.device:
    """The device a plan names. Raises AutotrainError where torch sees no such device here."""
    if section.kind == "cpu":
        return torch.device("cpu")
    if section.kind == "mps":
        there, device = torch.backends.mps.is_available(), torch.device("mps")
    else:
        there = section.index < torch.cuda.device_count()
        device = torch.device("cuda", section.index)
    if not there:
        raise AutotrainError(
            f"the plan is for {section.kind}:{section.index}, and torch sees no such device here",
            "`autotrain plan --refresh PLAN` plans anew for what is here",
        )
    return device


def nvidia_uuid(device: torch.device) -> str | None:
    """As the driver names it, whatever CUDA_VISIBLE_DEVICES makes of the numbers; else None."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    return str(torch.cuda.get_device_properties(device).uuid)


def rounding(plan: Plan, device: torch.device) -> dict[str, str]:
    """What it depends on how a run's sums are rounded, beside the form of its model."""
    on_cpu = device.type == "cpu"
    name = (
        f"a CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
        if on_cpu
        else torch.cuda.get_device_name(device)
    )
    said = {"torch": torch.__version__, "the device": name, "precision.dtype": plan.precision.dtype}
    return said | {"device.threads": str(plan.device.threads)} if on_cpu else said


@dataclass(frozen=True)
class Precision:
    """fp32 and tf32 compute as they are; bf16 casts; fp16 casts and scales the loss."""

    dtype: Dtype
    device: torch.device

    @property
    def casts(self) -> bool:
        """Whether a forward pass is cast at all."""
        return self.dtype in AUTOCAST

    def autocast(self) -> AbstractContextManager[object]:
        """Around each forward pass."""
        if self.dtype not in AUTOCAST:
            return nullcontext()
        return torch.autocast(self.device.type, AUTOCAST[self.dtype])

    def scaler(self) -> GradScaler:
        """The loss scaler; it passes everything through but for fp16."""
        return GradScaler(self.device.type, enabled=self.dtype == "fp16")


@contextmanager
def settings(plan: Plan) -> Iterator[None]:
    """The process-wide settings that a plan asks for, put back afterwards.

    fp32 means fp32: cuDNN's own default is tf32.
    """
    device = device_of(plan.device)
    tf32 = plan.precision.dtype != "fp32"
    threads = torch.get_num_threads()
    matmul = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32
    torch.set_num_threads(plan.device.threads)
    if device.type == "cuda":
        torch.cuda.set_device(plan.device.index)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    if device.type == "cpu":
        (keep_freed if plan.model.keeps_freed(plan.device.keep_freed) else give_back_at_once)()
    try:
        with kernels_kept(plan.device.kernels), same_order(device):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def same_order(device: torch.device) -> Iterator[None]:
    """On a CPU, have whatever adds up in threads do so in the same order each time.

    The gradient of `x[index]` in fp32 is the one that else does not, and takes no longer for it
    (two threads, 5,000 to 100,000 rows). Who has asked torch for it has decided.
    """
    searches: Any = torch.utils.deterministic  # for faults: it may fill what was not written to
    mode, fills = torch.get_deterministic_debug_mode(), searches.fill_uninitialized_memory
    if mode == 0 and device.type == "cpu":
        torch.set_deterministic_debug_mode("warn")
        searches.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        searches.fill_uninitialized_memory = fills


@contextmanager
def kernels_kept(count: int | None, beside: int = _MOST_BESIDE) -> Iterator[None]:
    """Have oneDNN keep so many, and torch `beside` it of each kind of operator at most. Both look
    once, before their first; who has set it has decided."""
    if count is None or any(name in os.environ for name in _KEPT_KERNELS):
        yield
        return
    wished = {_KEPT_KERNELS[0]: str(count)}
    if _KEPT_BESIDE not in os.environ:
        wished[_KEPT_BESIDE] = str(min(count, beside))
    os.environ.update(wished)
    try:
        yield
    finally:
        for name in wished:
            os.environ.pop(name, None)


@contextmanager
def capped(plan: Plan) -> Iterator[None]:
    """Have a GPU's allocator keep to the plan's budget, within.

    Drivers of Windows would rather spill into RAM than fail; a failure can be mended.
    """
    if plan.device.kind not in CUDA_LIKE:
        yield
        return
    index, predicted = plan.device.index, plan.predicted
    beside = predicted.device_peak_bytes.expected - predicted.reserved_peak_bytes.expected
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(
        share_of(plan.memory.budget_bytes, int(beside), total), index
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


def share_of(budget: int, beside: int, total: int) -> float:
    """Of a device's `total` bytes, what the allocator may have: the budget without the context.

    1 where that leaves nothing to cap.
    """
    share = (budget - beside) / total
    return share if 0.0 < share < 1.0 else 1.0


class ThrashingError(RuntimeError):
    """The allocator finds room only by giving its cache back, again and again."""


def thrashes(retries: int, steps: int) -> bool:
    """Whether so many times in so many steps are too often."""
    return retries > max(_THRASHING * steps, 1)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: by torch's, Python's or the system's word for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | ThrashingError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _RAN_OUT.search(str(error)) is not None


class Memory:
    """Bytes in use now and at the peak, as the system sees them.

    CPU: resident bytes of this process and its loader workers. CUDA: what the caching
    allocator reserved.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process()
        self._peak = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._retries = self._all_retries()
        _forget_own_peak()

    def now_and_peak(self) -> tuple[int, int]:
        """Takes about 0.1 ms; for log points."""
        if self.device.type == "cuda":
            reserved = torch.cuda.memory_reserved(self.device)
            return reserved, torch.cuda.max_memory_reserved(self.device)
        if self.device.type == "mps":
            now = torch.mps.driver_allocated_memory()
            self._peak = max(self._peak, now)
            return now, self._peak
        workers = sum(_resident(child.pid) for child in multiprocessing.active_children())
        own = self._process.memory_info()
        self._peak = max(self._peak, own.rss + workers, _own_peak(own) + workers)
        return own.rss + workers, self._peak

    def retries(self) -> int:
        """How often the allocator gave its cache back to find room, since this was asked last."""
        before, self._retries = self._retries, self._all_retries()
        return self._retries - before

    def _all_retries(self) -> int:
        if self.device.type != "cuda":
            return 0
        return int(torch.cuda.memory_stats(self.device).get("num_alloc_retries", 0))

    def tensor_peak(self) -> int | None:
        """The most bytes of tensors alive at once in this session, where the allocator counts."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device)


def _resident(pid: int | None) -> int:
    """A worker's own pages: those it shares with this process since the fork count once."""
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except psutil.Error:
        return 0


def _own_peak(info: object) -> int:
    """This process's highest resident bytes, since the run began where the system can tell."""
    if sys.platform == "win32":
        return int(getattr(info, "peak_wset", 0))
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: a process inherits that from the one that started it.
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _forget_own_peak() -> None:
    """Start the high-water mark afresh, so that planning does not count; Linux only."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
