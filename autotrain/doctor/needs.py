"""What a plan needs of this machine (`--for plan.toml`)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotrain import files
from autotrain.doctor.limits import FEW_FILES, open_files
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import largest_in
from autotrain.units import bytes_text

if TYPE_CHECKING:
    from autotrain.schema import Plan

_GRAVITY = ("ok", "skip", "warn", "fail")
_NOT_HERE = "the device is not here"


def device(scene: Scene) -> Result:
    """The plan's device is here, and torch sees it."""
    return _of_stages(_device, scene)


def precision(scene: Scene) -> Result:
    """The device computes in the plan's precision itself."""
    return _of_stages(_precision, scene)


def memory(scene: Scene) -> Result:
    """The plan's peak fits what is free now."""
    return _of_stages(_memory, scene)


def _of_stages(look: Callable[[Plan, Scene], Result], scene: Scene) -> Result:
    """The worst that is found of a plan's stages, with that one's name."""
    found = [(name, look(plan, scene)) for name, plan in scene.stages.items()]
    name, worst = max(found, key=lambda each: _GRAVITY.index(each[1].status))
    return worst._replace(detail=f"stage {name}: {worst.detail}") if name else worst


def _device(plan: Plan, scene: Scene) -> Result:
    kind, index, world = plan.device.kind, plan.device.index, plan.batch.world_size
    again = f"autotrain plan --refresh {scene.plan_name}"
    if kind == "cpu":
        from autotrain.probe.limits import usable_cores

        cores = usable_cores(scene.root)
        if plan.device.threads > cores:
            return warn(f"{plan.device.threads} threads on {cores} cores", again)
        return ok(f"the CPU, {plan.device.threads} threads of {cores} cores")
    told = scene.torch()
    if kind == "mps":
        seen = 1 if scene.asked.answer("mps")["there"] else 0
    else:
        built = told["hip"] if kind == "rocm" else told["cuda"]
        seen = len(scene.asked.answer("cuda")["devices"]) if built else 0
    if index >= seen:
        return fail(f"it is for {kind}:{index}, and torch sees no such device here", again)
    if index + world > seen:
        text = f"its {world} processes take a GPU each, and {seen - index} of these are here"
        mend = f"{again} --set batch.world_size={seen - index}"
        return warn(text, f"{mend}   # or on more machines: --nnodes")
    return ok(f"{kind}:{index}" + (f" to {kind}:{index + world - 1}" if world > 1 else ""))


def _precision(plan: Plan, scene: Scene) -> Result:
    dtype = plan.precision.dtype
    if dtype in ("fp32", "fp16") or plan.device.kind == "mps":
        return ok(dtype)
    if plan.device.kind == "cpu":
        from autotrain.probe.processor import native_dtypes, probe_cpu

        native = native_dtypes(probe_cpu(scene.root).features)
    else:
        from autotrain.probe.gpus import cuda_dtypes, rocm_dtypes

        gpus = _gpus(plan, scene)
        if not gpus:
            return skip(_NOT_HERE)
        name, (major, minor) = gpus[0]["architecture"], gpus[0]["capability"]
        native = rocm_dtypes(name) if name else cuda_dtypes((major, minor))
    if dtype not in native:
        text = f"{dtype} is not of this device's own: it goes through fp32"
        return warn(text, f"autotrain plan --refresh {scene.plan_name} --set precision.dtype=auto")
    return ok(dtype)


def _memory(plan: Plan, scene: Scene) -> Result:
    """Processes on a CPU share its memory, those on GPUs have one each."""
    need, world, processes = plan.predicted.device_peak_bytes, plan.batch.world_size, ""
    if plan.device.kind in ("cpu", "mps"):
        from autotrain.probe.limits import usable_memory

        free = usable_memory(scene.root).available_bytes
        processes = f" in each of {world} processes" if world > 1 else ""
    else:
        gpus = _gpus(plan, scene)
        if not gpus:
            return skip(_NOT_HERE)
        free, world = min(gpu["free"] for gpu in gpus), 1
    takes = f"{bytes_text(need.low)} to {bytes_text(need.high)}{processes}"
    text = f"it takes {takes}, {bytes_text(free)} are free"
    again = f"autotrain plan --refresh {scene.plan_name}   # or end other programs"
    if free < need.low:
        return fail(text, again)
    if free < world * need.high:
        return warn(text, again)
    return ok(text)


def _gpus(plan: Plan, scene: Scene) -> list[dict[str, Any]]:
    """Those of the plan's GPUs that are here, one for each process."""
    listed = scene.asked.answer("cuda")["devices"] if scene.torch() else []
    return listed[plan.device.index :][: plan.batch.world_size]


def checkpoints(scene: Scene) -> Result:
    """The disk holds the checkpoints that are kept, and one being written."""
    each = max(plan.predicted.checkpoint_bytes.expected for plan in scene.plans)
    keep = max(plan.checkpoint.keep for plan in scene.plans) + 1
    folder = files.nearest_folder(scene.where)
    free, said = files.room(folder)
    text = f"{keep} x {bytes_text(each)} for checkpoints, free {said}"
    mend = f"{largest_in(folder)}   # or: --set checkpoint.keep={max(keep - 2, 1)}"
    if free < each:
        return fail(text, mend)
    if free < keep * each:
        return warn(text, mend)
    return ok(text)


def workers(scene: Scene) -> Result:
    """Files may be open for all loader workers at once."""
    count = max(plan.loader.workers for plan in scene.plans)
    if not count:
        return skip("it has no loader workers")
    soft = open_files()
    # Two pipes, a watch and a stack file each; a tensor on its way is a file, too.
    held = max(plan.loader.workers * plan.loader.prefetch for plan in scene.plans)
    need = FEW_FILES + 6 * count + 8 * held
    text = f"{count} workers want about {need} files, `ulimit -n` is {soft}"
    if soft is not None and soft < need:
        return warn(f"{text}: micro-batches go through pipes", f"ulimit -n {max(4096, need)}")
    return ok(text if soft is not None else "no limit on files")


def shared(scene: Scene) -> Result:
    """/dev/shm holds what loader workers have ready."""
    if not sys.platform.startswith("linux"):
        return skip("other systems have no /dev/shm")
    held = max(_handed_over(plan) for plan in scene.plans)
    if not held:
        return skip("it has no loader workers, or its samples' size is not known")
    try:
        free = shutil.disk_usage(scene.root / "dev/shm").free
    except OSError as error:
        return warn(f"/dev/shm: {error.strerror}", "docker run --shm-size=8g")
    text = f"workers hold about {bytes_text(held)} ready, {bytes_text(free)} are free in /dev/shm"
    if free < held:
        mend = f"mount -o remount,size={held // 10**9 + 1}G /dev/shm   # a container: --shm-size"
        return warn(f"{text}: micro-batches go through pipes, which is slower", mend)
    return ok(text)


def _handed_over(plan: Plan) -> int:
    """Bytes that workers have ready at once, by the mean size of a sample's file."""
    count, size = plan.inputs.train_samples, plan.inputs.data_bytes
    if not plan.loader.workers or not count or not size:
        return 0
    return plan.loader.workers * plan.loader.prefetch * plan.batch.micro_batch * size // count
