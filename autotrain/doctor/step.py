"""Real training steps, beside the CPU's in fp64: does this device compute what it should?"""

from __future__ import annotations

import sys
from typing import Any

from autotrain.doctor.asking import NoAnswerError
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import STEP_SECONDS, Scene
from autotrain.units import seconds_text

# How far weights may be from the reference's after three steps, as a share of the way they went.
# Seen: fp32 1e-6 to 1e-4, tf32 2e-3, bf16 2e-2, fp16 2e-3.
LIMITS = {"fp32": 1e-2, "tf32": 5e-2, "bf16": 0.25, "fp16": 5e-2}
_LEFT_OUT = "left out (--no-step)"


def question(kind: str, scene: Scene) -> str:
    """What to ask for the steps on all devices of a kind."""
    return f"step {kind} {scene.dtype(kind)} {STEP_SECONDS:g}"


def questions(scene: Scene) -> list[str]:
    """Those that this machine's checks will ask."""
    kinds = ["cpu", "mps" if sys.platform == "darwin" else "cuda"]
    return [question(kind, scene) for kind in kinds] if scene.step else []


def cpu_fp32(scene: Scene) -> Result:
    """Training steps on the CPU in fp32 come out right."""
    return _taken("cpu", 0, scene)


def cpu_planned(scene: Scene) -> Result:
    """Training steps on the CPU in the planned precision, or bf16, come out right."""
    return _taken("cpu", 1, scene)


def gpu_fp32(scene: Scene) -> Result:
    """Training steps on each GPU in fp32 come out as on the CPU."""
    return _taken(_gpu_kind(scene), 0, scene)


def gpu_planned(scene: Scene) -> Result:
    """Training steps on each GPU in the planned precision, bf16 or fp16, come out as on the CPU."""
    return _taken(_gpu_kind(scene), 1, scene)


def _gpu_kind(scene: Scene) -> str:
    return "mps" if sys.platform == "darwin" else "cuda"


def _taken(kind: str, which: int, scene: Scene) -> Result:
    if not scene.step:
        return skip(_LEFT_OUT)
    scene.torch()
    if kind == "mps" and not scene.asked.answer("mps")["there"]:
        return skip("no GPU that torch could use")
    if kind == "cuda" and not scene.asked.answer("cuda")["devices"]:
        return skip("no GPU that torch could use")
    try:
        devices = scene.asked.answer(question(kind, scene))["devices"]
    except NoAnswerError as error:
        return fail(f"training steps on {kind}: {error}", _mend(kind))
    if which == 1 and scene.dtype(kind) == "fp32":
        return skip("fp32 is what is planned")
    found = [_judged(each["name"], each["tried"][which], kind) for each in devices]
    worst = max(found, key=lambda each: ("ok", "warn", "fail").index(each.status))
    return worst._replace(detail="; ".join(each.detail for each in found))


def _judged(device: str, told: dict[str, Any], kind: str) -> Result:
    """What steps in one precision on one device say of it."""
    dtype = told["dtype"]
    where = dtype if kind == "cpu" else f"{device} in {dtype}"
    if "problem" in told:
        text, fp32 = f"{where}: {told['problem']}", "autotrain plan ... --set precision.dtype=fp32"
        return fail(text, _mend(kind)) if dtype == "fp32" else warn(text, fp32)
    error, drift, limit = told["error"], told["drift"], LIMITS[dtype]
    if not told["finite"]:
        return fail(f"{where}: NaN or infinite weights after 3 steps", _mend(kind))
    if error > limit:
        text = f"{where}: 3 steps end {error:.1%} of the way from where fp64's do"
        return fail(text, _mend(kind))
    if drift > limit:
        text = f"{where}: the same 3 steps end {drift:.1%} of the way apart from time to time"
        return fail(text, _mend(kind))
    pace = f"{told['steps']} steps, {seconds_text(told['step_seconds'])} each"
    return ok(f"{where}: as in fp64 to {max(error, drift):.0e} of the way; {pace}")


def _mend(kind: str) -> str:
    if kind == "cpu":
        return "python -m autotrain doctor   # once more; again: test the memory (memtest86+)"
    return (
        "python -m autotrain doctor   # once more; again: sudo nvidia-smi --gpu-reset, another GPU"
    )
