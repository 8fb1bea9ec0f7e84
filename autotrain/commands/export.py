"""`autotrain export`: a trained model for other programs, checked against the model itself."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from autotrain import __version__
from autotrain.commands.opened import Opened, Wanted, explained, open_run
from autotrain.commands.streams import data_only
from autotrain.errors import UsageError
from autotrain.report.text import labelled, literal, number, plural
from autotrain.units import bytes_text

if TYPE_CHECKING:
    from torch.nn import Module

    from autotrain.exporting.calls import Call
    from autotrain.exporting.made import Made
    from autotrain.run.trained import Trained

SUFFIXES = (".safetensors", ".pt", ".pth")  # of a state dict
FILES = {"onnx": "model.onnx", "torchscript": "model.ts", "state-dict": "model.safetensors"}
# The samples of each batch, by their place in the split: the first is followed; the next has its
# sizes but for the batch's, and one of the next three has all of them, with other content; then
# others, longer or shorter, and one alone.
BATCHES = ((0, 1, 2), (0, 1, 2, 0, 1), (0,) * 3, (1,) * 3, (2,) * 3, (3, 4), (5,), (6, 7, 8, 9))


def export(wanted: Wanted, to: str, output: str | None, *, as_json: bool) -> int:
    """Write the model, and print what it is given and how it was checked."""
    if to not in FILES:
        raise UsageError(f"--to {to}: no such format", hint=f"one of {', '.join(FILES)}")
    with data_only() as out, _terminable():
        opened = open_run(wanted._replace(device="cpu"))
        target = opened.place / FILES[to] if output is None else Path(output)
        _check_target(target, to)
        try:
            record, made = _exported(opened, to, target)
        except Exception as error:
            raise explained(error, f"exporting {opened.name}") from error
        said = json.dumps(record) if as_json else _text(opened, to, target, record, made)
        print(said, file=out, flush=True)
    return 0


def _check_target(target: Path, to: str) -> None:
    if target.is_dir():
        raise UsageError(f"-o {target}: a folder", hint=f"name a file: {target / FILES[to]}")
    if to == "state-dict" and target.suffix not in SUFFIXES:
        raise UsageError(
            f"-o {target}: a state dict goes into {', '.join(SUFFIXES)}",
            hint=f"-o {target.with_suffix('.safetensors')}",
        )


def _exported(opened: Opened, to: str, target: Path) -> tuple[dict[str, Any], Made]:
    from autotrain.device import settings
    from autotrain.exporting.made import in_place_of
    from autotrain.run.trained import plainly

    plain = opened._replace(plan=plainly(opened.plan))
    with settings(plain.plan):
        trained = plain.load()
        notes = {
            "made_by": f"autotrain {__version__}",
            "run": opened.name,
            "step": str(trained.step),
            "weights_sha256": trained.weights_sha256,
        }
        facts = {} if plain.task.facts is None else {"facts": json.dumps(plain.task.facts)}
        with in_place_of(target) as path:
            made = _made(trained, to, path, notes | facts)
            digest, size = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    record = {
        "to": to, "file": str(target), "bytes": size, "sha256": digest, "way": made.way,
        **notes, "step": trained.step, "averaged": trained.averaged,
        "inputs": [{"name": p.name, "dtype": p.dtype, "shape": p.shape} for p in made.inputs],
        "checked": {
            "batches": [*made.agreed.samples],
            "invented": opened.kept,
            "most_difference": made.agreed.most,
            "share_of_largest": made.agreed.share,
        },
        **made.more,
    }  # fmt: skip
    return record, made


def _made(trained: Trained, to: str, path: Path, notes: dict[str, str]) -> Made:
    from autotrain.exporting import onnx, torchscript, weights
    from autotrain.run.assemble import build_model

    batches = [[place % trained.count for place in each] for each in BATCHES]
    if to != "state-dict":
        write = onnx.write if to == "onnx" else torchscript.write
        return write(*_called(trained, batches), path, notes)

    def judge(model: Any) -> list[float]:
        import torch

        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a model may draw numbers in eval mode too
            losses = [trained.task.loss(model, trained.batch(each)) for each in batches]
        return [float(loss.total) for loss in losses]

    return weights.write(
        trained.model,
        lambda: build_model(trained.plan, trained.task, trained.device),
        judge,
        [len(each) for each in batches],
        path,
        notes,
    )


def _called(trained: Trained, batches: Sequence[Sequence[int]]) -> tuple[Module, list[Call]]:
    """What is exported: the model as the task's loss calls it on these batches, or what the task
    makes of it. A batch that it refuses is left out."""
    from autotrain.exporting.calls import caught

    model = trained.model
    found: list[Call] = []
    for each in batches:
        try:
            batch = trained.batch(each)
            use: Callable[[], object] = partial(trained.loss, batch)
            if trained.task.export is not None:
                model, given = trained.task.export(trained.model, batch)
                use = partial(model.eval(), *given)
            found.append(caught(model, len(each), use))
        except Exception as error:
            if not found:
                raise
            print(f"warning: not checked with {plural(len(each), 'sample')}: {error}",
                  file=sys.stderr)  # fmt: skip
    return model, found


def _text(opened: Opened, to: str, target: Path, record: dict[str, Any], made: Made) -> str:
    averaged = ", averaged weights" if record["averaged"] else ""
    lines = [
        labelled("exported", f"{opened.name} at step-{record['step']:08d}{averaged}: {to}"),
        literal("file", f"{target} ({bytes_text(record['bytes'])})"),
        literal("sha256", record["sha256"]),
        literal("weights", f"{record['weights_sha256']} (the checkpoint's file)"),
    ]
    lines += [labelled("" if n else "given", str(port)) for n, port in enumerate(made.inputs)]
    if made.narrowed:
        lines.append(labelled("", "other sizes vary in the model, and could not in what was made"))
    sizes = sorted(set(made.agreed.samples))
    way = "in a model built anew" if to == "state-dict" else f"against the model (by {made.way})"
    kind = "invented" if opened.kept else "real"
    way += f" on {kind} batches of {', '.join(map(str, sizes))} samples"
    most = f"differs by {number(made.agreed.most)} at most" if made.agreed.most else "no difference"
    lines.append(labelled("checked", f"{way}: {most}"))
    lines += ["", literal("next", _next(to, target))]
    return "\n".join(lines)


def _next(to: str, target: Path) -> str:
    where = json.dumps(str(target))
    return {
        "onnx": f"python -c 'import onnxruntime; onnxruntime.InferenceSession({where})'",
        "torchscript": f"python -c 'import torch; torch.jit.load({where})'",
        "state-dict": f"model.load_state_dict(safetensors.torch.load_file({where}))"
        if target.suffix == ".safetensors"
        else f"model.load_state_dict(torch.load({where}, weights_only=True))",
    }[to]


@contextmanager
def _terminable() -> Iterator[None]:
    """Within, SIGTERM leaves as ^C does: what was half made is taken away."""

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(143)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
