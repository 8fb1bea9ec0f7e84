"""A run as the caching allocator sees it: what is born and dies, from the model's move on.

A tape (`schema.StepTrace`) is one step without its optimizer. Here it becomes the run's: the
model, steps with the optimizer's states and temporaries, and evaluations between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from autotrain.plan.memory import KEEP_MOMENTUM, LOOP_TEMPORARIES, STATES, Setup, in_groups
from autotrain.schema import OptimizerName, StepTrace

# What a foreach step makes (+) and drops (-), each a list as large as all parameters, in the
# order of torch/optim/*.py (`_multi_tensor_*`, 2.11). Capitals depend on weight decay: G (the
# gradients with it) only with, N only without. S: where SGD's momentum is born.
FOREACH: dict[OptimizerName, str] = {
    "adamw": "+a -a",
    "adam": "+G -G +a -a",
    "nadam": "+G +a -G -a",
    "radam": "+G -G +a -a",
    "adamax": "+a -a",
    "adadelta": "+G +a +b -G -a -b",
    "rprop": "+a -a +b -b",
    "rmsprop": "+G +a -G -a",
    "adagrad": "+G +a +N -G -N -a",
    "sgd": "+G S -G",
}
# Their fused kernels read a step counter of 4 bytes a parameter from the device.
FUSED_COUNTERS: frozenset[OptimizerName] = frozenset({"adam", "adamw", "adagrad"})
COUNTER = 4
STEPS = 3  # states are born in the first; from the second on a step repeats itself
# Of DistributedDataParallel: torch/distributed/__init__.py, `_DEFAULT_FIRST_BUCKET_BYTES`, and its
# `bucket_cap_mb`.
FIRST_BUCKET_BYTES, BUCKET_BYTES = 1 << 20, 25 << 20


class Scene(NamedTuple):
    """What surrounds the step: `workspaces` are born once and stay (cuBLAS, one a thread).

    `evaluates`: there is an evaluation after the second step. Of other people's loops:
    `keeps_batch`: a batch dies only when the next one is there; `late_zero`: gradients are
    dropped after the next forward pass, not after the step.
    """

    workspaces: tuple[int, ...] = ()
    evaluates: bool = True
    keeps_batch: bool = False
    late_zero: bool = False
    steps: int = STEPS


class _Run:
    """A tape in the making."""

    def __init__(self) -> None:
        self.tape: list[int] = []
        self.births = 0

    def born(self, size: int) -> int:
        self.tape.append(size)
        self.births += 1
        return self.births - 1

    def dies(self, numbers: Iterable[int]) -> None:
        self.tape.extend(-1 - number for number in numbers)

    def play(
        self, part: Iterable[int], start: int, names: dict[int, int], due: dict[int, int]
    ) -> None:
        """Repeat a part of a step's tape whose first birth had the number `start` there.

        `names` takes a living storage's number there to its number here; unknown ones die
        silently. `due`: storages of the step before, each with how many births it lives through.
        """
        old, tape, births = start, self.tape, self.births
        ends = sorted((after, number) for number, after in due.items())
        while ends and ends[0][0] <= 0:
            tape.append(-1 - ends.pop(0)[1])
        for entry in part:
            if entry >= 0:
                names[old] = births
                tape.append(entry)
                births += 1
                old += 1
                while ends and ends[0][0] <= old - start:
                    tape.append(-1 - ends.pop(0)[1])
            else:
                new = names.pop(-1 - entry, None)
                if new is not None:
                    tape.append(-1 - new)
        self.births = births
        self.dies(number for _, number in ends)


class _Parts(NamedTuple):
    """A step's tape cut at its marks; `*_start` is the number of a part's first birth.

    `kept`: storages of the first micro-batch that die within the next one, each with how many
    births it lives through there. What else survives are the gradients.
    """

    model: tuple[int, ...]
    batch: tuple[int, ...]
    first: tuple[int, ...]
    later: tuple[int, ...]
    evaluation: tuple[int, ...]
    starts: tuple[int, int, int, int, int]
    kept: dict[int, int]


def _parts(trace: StepTrace) -> _Parts:
    cuts = (0, *trace.marks, len(trace.tape))
    pieces = [trace.tape[a:b] for a, b in pairwise(cuts)]
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + sum(entry >= 0 for entry in piece))
    first, later, kept, births = starts[2], starts[3], {}, 0
    for entry in pieces[3]:
        if entry >= 0:
            births += 1
        elif first <= -1 - entry < later and births < starts[4] - later:
            kept[-1 - entry] = births
    model, batch, one, two, evaluation = pieces
    return _Parts(model, batch, one, two, evaluation, tuple(starts[:5]), kept)  # type: ignore[arg-type]


def alike(trace: StepTrace, setup: Setup) -> Setup:
    """The settings as far as a run's tape goes by them, so that equal ones are played once."""
    return Setup(
        trace.micro_batch,
        min(setup.accum_steps, 2),
        setup.dtype,
        setup.optimizer,
        setup.implementation,
        setup.momentum,
        decays=setup.decays,
        ema=setup.ema,
        groups=setup.groups,
        several=setup.several,
    )


def run_tape(
    trace: StepTrace, sizes: tuple[int, ...], setup: Setup, scene: Scene
) -> tuple[int, ...]:
    """The tape of a short run: `scene.steps` steps of a model of these trainable `sizes`, in the
    order in which its optimizer sees them.
    """
    parts, run = _parts(trace), _Run()
    run.play(parts.model, 0, {}, {})
    states = _States(run, sizes, setup)
    if setup.optimizer == "adagrad":
        for group in states.groups:
            states.born(group)
    if setup.ema:
        for size in sizes:
            run.born(size)
    if setup.several:
        for size in _buckets(sizes):
            run.born(size)
    due: dict[int, int] = {}
    batch: list[int] = []
    for step in range(scene.steps):
        batch, due = _step(run, parts, setup, scene, states, batch, due)
        if step == 1 and scene.evaluates:
            names: dict[int, int] = {}
            loaded = _load(run, parts)
            run.play(parts.evaluation, parts.starts[4], names, {})
            run.dies([*names.values(), *loaded])
    return tuple(run.tape)


def _buckets(sizes: tuple[int, ...]) -> list[int]:
    """Sizes of the buckets of DistributedDataParallel: torch's defaults, the last trained first."""
    found, cap, held = [], FIRST_BUCKET_BYTES, 0
    for size in reversed(sizes):
        held += size
        if held >= cap:
            found.append(held)
            cap, held = BUCKET_BYTES, 0
    return [*found, held] if held else found


def _load(run: _Run, parts: _Parts) -> list[int]:
    names: dict[int, int] = {}
    run.play(parts.batch, parts.starts[1], names, {})
    return list(names.values())


def _step(
    run: _Run,
    parts: _Parts,
    setup: Setup,
    scene: Scene,
    states: _States,
    batch: list[int],
    due: dict[int, int],
) -> tuple[list[int], dict[int, int]]:
    names: dict[int, int] = {}
    for micro in range(min(setup.accum_steps, 2)):
        loaded = _load(run, parts)
        run.dies(batch)
        batch = loaded
        if not states.workspaces:
            states.workspaces = [run.born(size) for size in scene.workspaces] or [0]
        if micro == 0:
            run.play(parts.first, parts.starts[2], names, due)
            gradients = {old: new for old, new in names.items() if old not in parts.kept}
            due = {names[old]: at for old, at in parts.kept.items() if old in names}
        else:
            later: dict[int, int] = {}
            run.play(parts.later, parts.starts[3], later, due)
            due = dict.fromkeys(later.values(), 0)
    if not scene.keeps_batch:
        run.dies(batch)
        batch = []
    states.update()
    if scene.late_zero:
        begins = min(gradients, default=0) - parts.starts[2]
        return batch, due | dict.fromkeys(gradients.values(), begins)
    run.dies(gradients.values())
    return batch, due


class _States:
    """An optimizer's step: its states, born with the first one, and what it makes meanwhile."""

    def __init__(self, run: _Run, sizes: tuple[int, ...], setup: Setup) -> None:
        self.run, self.sizes, self.setup = run, sizes, setup
        self.groups = [_Group(*g) for g in in_groups(sizes, setup.groups, decays=setup.decays)]
        self.workspaces: list[int] = []

    def born(self, group: _Group) -> None:
        """All states of a group's parameters, unless they are there."""
        if group.there:
            return
        group.there = True
        name, momentum = self.setup.optimizer, self.setup.momentum
        copies = STATES[name] + bool(name in KEEP_MOMENTUM and momentum)
        counts = self.setup.implementation == "fused" and name in FUSED_COUNTERS
        for size in group.sizes:
            if counts:
                self.run.born(COUNTER)
            for _ in range(copies):
                self.run.born(size)

    def update(self) -> None:
        """One step of the optimizer."""
        # The gradients' norm: one number for each.
        self.run.dies([self.run.born(COUNTER) for _ in self.sizes])
        for group in self.groups:
            self._update(group)

    def _update(self, group: _Group) -> None:
        name, implementation = self.setup.optimizer, self.setup.implementation
        late = name == "sgd" and implementation == "foreach"
        if not late:
            self.born(group)
        if implementation == "foreach":
            self._foreach(FOREACH[name].split(), group)
        elif implementation == "for-loop":
            for size in group.sizes:
                made = [self.run.born(size) for _ in range(LOOP_TEMPORARIES[name])]
                self.run.dies(made)

    def _foreach(self, steps: list[str], group: _Group) -> None:
        lists: dict[str, list[int]] = {}
        for step in steps:
            name = step[-1]
            if step == "S":
                self.born(group)
            elif (name == "G" and not group.decays) or (name == "N" and group.decays):
                continue
            elif step[0] == "+":
                lists[name] = [self.run.born(size) for size in group.sizes]
            else:
                self.run.dies(lists.pop(name))


@dataclass
class _Group:
    """Parameters that an optimizer works on together; `there`: their states are."""

    sizes: tuple[int, ...]
    decays: bool
    there: bool = False
