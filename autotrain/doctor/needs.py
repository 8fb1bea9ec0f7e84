"""What a plan needs of this machine (`--for plan.toml`)."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from autotrain import files
from autotrain.doctor.limits import FEW_FILES, open_files
from autotrain.doctor.mending import shown
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.units import bytes_text

if TYPE_CHECKING:
    from autotrain.schema import Plan, Prediction


def device(scene: Scene) -> Result:
    """The plan's device is here, and torch sees it."""
    plan = scene.plan
    kind, index = plan.device.kind, plan.device.index
    if kind == "cpu":
        from autotrain.probe.limits import usable_cores

        cores = usable_cores(scene.root)
        if plan.device.threads > cores:
            text = f"{plan.device.threads} threads on {cores} cores"
            return warn(text, f"autotrain plan --refresh {scene.plan_name}")
        return ok(f"the CPU, {plan.device.threads} threads of {cores} cores")
    told = scene.torch()
    if kind == "mps":
        there = bool(scene.asked.answer("mps")["there"])
    else:
        built = told["hip"] if kind == "rocm" else told["cuda"]
        there = bool(built) and index < len(scene.asked.answer("cuda")["devices"])
    if not there:
        text = f"it is for {kind}:{index}, and torch sees no such device here"
        return fail(text, f"autotrain plan --refresh {scene.plan_name}")
    return ok(f"{kind}:{index}")


def precision(scene: Scene) -> Result:
    """The device computes in the plan's precision itself."""
    plan = scene.plan
    dtype = plan.precision.dtype
    if dtype in ("fp32", "fp16") or plan.device.kind == "mps":
        return ok(dtype)
    if plan.device.kind == "cpu":
        from autotrain.probe.processor import native_dtypes, probe_cpu

        native = dtype in native_dtypes(probe_cpu(scene.root).features)
    else:
        listed = scene.asked.answer("cuda")["devices"] if scene.torch() else []
        if plan.device.index >= len(listed):
            return skip("the device is not here")
        capability = tuple(listed[plan.device.index]["capability"])
        native = bool(scene.torch()["hip"]) or capability >= (8, 0)
    if not native:
        text = f"{dtype} is not of this device's own: it goes through fp32"
        return warn(text, f"autotrain plan --refresh {scene.plan_name} --set precision.dtype=auto")
    return ok(dtype)


def memory(scene: Scene) -> Result:
    """The plan's peak fits what is free now."""
    plan, need = _largest(scene)
    if plan.device.kind in ("cpu", "mps"):
        from autotrain.probe.limits import usable_memory

        free = usable_memory(scene.root).available_bytes
    else:
        listed = scene.asked.answer("cuda")["devices"] if scene.torch() else []
        if plan.device.index >= len(listed):
            return skip("the device is not here")
        free = listed[plan.device.index]["free"]
    takes = f"{bytes_text(need.low)} to {bytes_text(need.high)}"
    text = f"it takes {takes}, {bytes_text(free)} are free"
    again = f"autotrain plan --refresh {scene.plan_name}   # or end other programs"
    if free < need.low:
        return fail(text, again)
    if free < need.high:
        return warn(text, again)
    return ok(text)


def checkpoints(scene: Scene) -> Result:
    """The disk holds the checkpoints that are kept, and one being written."""
    each = max(plan.predicted.checkpoint_bytes.expected for plan in scene.plans)
    keep = max(plan.checkpoint.keep for plan in scene.plans) + 1
    folder = files.nearest_folder(scene.where)
    free, said = files.room(folder)
    text = f"{keep} x {bytes_text(each)} for checkpoints, free {said}"
    mend = (
        f"du -xh {shown(folder)} | sort -h | tail   # or: --set checkpoint.keep={max(keep - 2, 1)}"
    )
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


def _largest(scene: Scene) -> tuple[Plan, Prediction]:
    """Of a plan with stages, the one that takes most."""
    plan = max(scene.plans, key=lambda plan: plan.predicted.device_peak_bytes.high)
    return plan, plan.predicted.device_peak_bytes


def _handed_over(plan: Plan) -> int:
    """Bytes that workers have ready at once, by the mean size of a sample's file."""
    count, size = plan.inputs.train_samples, plan.inputs.data_bytes
    if not plan.loader.workers or not count or not size:
        return 0
    return plan.loader.workers * plan.loader.prefetch * plan.batch.micro_batch * size // count
