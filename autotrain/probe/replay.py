"""A traced step's operators played again on real memory: how long they take in their order.

None of the task's own code runs. What the step computed is computed again, on numbers like those of
a model just made, and lives as long as it did there, so caches and the allocator see what they
would see in a step. The calls are spelled out as source and compiled, so that playing costs little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from autotrain.malloc import keep_freed
from autotrain.probe.trace.counter import Counter
from autotrain.probe.trace.program import Alias, Call, Free, Given, Program, Recorder, Slot, Step

Slots = list[Any]
# Operators whose binding in Python takes the arguments of its schema as they are.
_FUNCTIONS = (
    "add addmm bmm baddbmm cat convolution div embedding exp log mean mm mul native_batch_norm "
    "native_group_norm native_layer_norm relu select sigmoid split squeeze sub sum t tanh "
    "transpose unbind unsqueeze"
)
_METHODS = "add_ copy_ detach div_ expand mul_ permute relu_ sigmoid_ sub_ tanh_ view"
BOUND = {name: getattr(torch, name) for name in _FUNCTIONS.split()} | {
    name: getattr(torch.Tensor, name) for name in _METHODS.split()
}
FIRST, LATER, EVALUATE = range(3)  # the parts of a traced step
# Of rounds the median counts.
LEAST_ROUNDS, MOST_ROUNDS = 3, 9
LEAST = 0.5  # of what playing took
LONGEST = 30.0  # seconds; who is not through its least rounds by then is on a busy machine
TIMES = 9  # a step of next to nothing is repeated, to tell what asking for its calls takes


class Taken(NamedTuple):
    """Seconds of one micro-batch, the mean of a step's; and of one without gradients.

    The latter is None where it cannot be played: a search takes another way for other values.
    """

    seconds: float
    evaluate_seconds: float | None


def timed(programs: Sequence[tuple[Program, int]], accum_steps: int, seconds: float) -> list[Taken]:
    """What each program takes on so many threads: rounds in turns, for about `seconds`.

    Every other round goes the other way about: who comes right after one on fewer threads is slow.
    Of several each is played twice in its turn, and the second time counts: steps of a run follow
    their like, and what oneDNN keeps of this program's kernels the others have pushed out.
    Raises TimeoutError where a few rounds take LONGEST.
    """
    before, begun, several = torch.get_num_threads(), time.perf_counter(), len(programs) > 1
    keep_freed()
    try:
        with torch.random.fork_rng(devices=[]):
            asking = measure_asking()
            players = [Player(program) for program, _ in programs]
            rounds: list[list[Taken]] = [[] for _ in programs]
            for number in range(1, 1 + MOST_ROUNDS):
                for at in range(len(players))[:: -1 if number % 2 else 1]:
                    if number <= LEAST_ROUNDS and time.perf_counter() > begun + LONGEST:
                        raise TimeoutError(f"a few rounds of it take over {LONGEST:.0f} s now")
                    torch.set_num_threads(programs[at][1])
                    if several or number == 1:
                        players[at].round(accum_steps, asking)  # warms up
                    rounds[at].append(players[at].round(accum_steps, asking))
                if number >= LEAST_ROUNDS and time.perf_counter() > begun + seconds:
                    break
        return [_middle(found) for found in rounds]
    finally:
        torch.set_num_threads(before)


def _middle(found: Sequence[Taken]) -> Taken:
    """The medians of these rounds."""
    evaluated = [of.evaluate_seconds for of in found if of.evaluate_seconds is not None]
    seconds = statistics.median(of.seconds for of in found)
    return Taken(seconds, statistics.median(evaluated) if evaluated else None)


class Calls(NamedTuple):
    """Of one part of a step: what Python asked for, and what torch called on the way."""

    asked: int
    inner: int


class Asking(NamedTuple):
    """Seconds a call that a real step takes beyond a played one: modules, autograd, arguments.

    Less than nothing for what torch calls itself, as playing it goes through Python.
    """

    asked: float
    inner: float

    def of(self, calls: Calls) -> float:
        """All of them together."""
        return calls.asked * self.asked + calls.inner * self.inner


def measure_asking() -> Asking:
    """From two steps that have next to nothing to compute, for real and played.

    Of the one, Python asks for much; of the other, torch calls nearly all on the way. Both are
    long, as code that runs through once is slower than a loop.
    """
    layers = (nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU()) for _ in range(40))
    rows, frames = torch.ones(4, 8), torch.ones(2, 60, 8)
    many, cell = nn.Sequential(*layers), nn.GRU(8, 8, batch_first=True)
    with torch.enable_grad():
        a, more_a = _beyond(lambda: many(rows).sum().backward(), many)
        b, more_b = _beyond(lambda: cell(frames)[0].sum().backward(), cell)
    both = a.asked * b.inner - b.asked * a.inner
    return Asking(
        (more_a * b.inner - more_b * a.inner) / both, (a.asked * more_b - b.asked * more_a) / both
    )


def _beyond(step: Callable[[], None], model: nn.Module) -> tuple[Calls, float]:
    """A step's calls, and its seconds less those of playing it."""
    counter = Counter()
    counter.recorder = recorder = Recorder()
    recorder.mark()
    step()
    model.zero_grad(set_to_none=True)
    with counter:
        counter.hold(model.parameters())
        step()
    counter.off()
    player = Player(recorder.program)
    taken = []
    for do in (step, lambda: player.play(FIRST)):
        do()
        each = []
        for _ in range(TIMES):
            begun = time.perf_counter()
            do()
            each.append(time.perf_counter() - begun)
        taken.append(statistics.median(each))
    return player.calls[FIRST], taken[0] - taken[1]


class Player:
    """A program with its tensors, ready to be played."""

    def __init__(self, program: Program) -> None:
        self.slots = program.slots
        self.given = [(given.slot, filled(given)) for given in program.given]
        ends = (*program.marks[1:], len(program.steps))
        steps = [program.steps[start:end] for start, end in zip(program.marks, ends, strict=True)]
        self.parts = [spelled(part) for part in steps]
        self.calls = [_counted(part) for part in steps]

    def round(self, accum_steps: int, asking: Asking) -> Taken:
        """One step of so many micro-batches, and one micro-batch without gradients."""

        def took(*parts: int) -> float:
            played = self.play(*parts)
            return max(played + asking.of(self.calls[parts[-1]]), LEAST * played)

        first = took(FIRST)
        later = took(FIRST, LATER) if accum_steps > 1 else first
        evaluated = None
        with suppress(Exception):  # of whatever operator met other sizes than in the trace
            evaluated = took(EVALUATE)
        return Taken((first + (accum_steps - 1) * later) / accum_steps, evaluated)

    def play(self, *parts: int) -> float:
        """Seconds of the last of these parts, after those before it.

        Below autograd, which has done its work in the trace; with gradients enabled, because some
        operators keep what their backward needs only then.
        """
        slots: Slots = [None] * self.slots
        for slot, tensor in self.given:
            slots[slot] = tensor
        begun = 0.0
        with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd():
            for part in parts:
                begun = time.perf_counter()
                self.parts[part](slots)
        return time.perf_counter() - begun


def _counted(steps: Sequence[Step]) -> Calls:
    calls = [step for step in steps if isinstance(step, Call)]
    asked = sum(call.asked for call in calls)
    return Calls(asked, len(calls) - asked)


def spelled(steps: Sequence[Step]) -> Callable[[Slots], None]:
    """These steps as one function of the slots."""
    names: dict[str, Any] = {"put": _put}
    lines = [f" {line}" for step in steps for line in _lines(step, names)]
    source = "\n".join(["def part(s):", *lines, " return"])
    exec(compile(source, "<replay>", "exec"), names)
    made: Callable[[Slots], None] = names["part"]
    return made


def _lines(step: Step, names: dict[str, Any]) -> list[str]:
    if isinstance(step, Free):
        return ["=".join([*(f"s[{slot}]" for slot in step.slots), "None"])]
    if isinstance(step, Alias):
        sizes, strides, offset, _ = step.look
        return [f"s[{step.slot}]=s[{step.base}].as_strided({sizes},{strides},{offset})"]
    args, kwargs = pytree.tree_unflatten(list(step.leaves), step.tree)
    func, args, kwargs = _direct(step.func, args, kwargs)
    given = [_spelled(value, names) for value in args]
    given += [f"{key}={_spelled(value, names)}" for key, value in kwargs.items()]
    call = f"{_named(func, names)}({','.join(given)})"
    if len(step.outputs) == 1 and step.outputs[0] is not None and step.single:
        return [f"s[{step.outputs[0]}]={call}"]
    return [f"put(s,{step.outputs},{call})"]


def _direct(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The same call by torch's own binding, where there is one: half of what the general way costs,
    for lists and keywords less than that."""
    space, _, name = func._schema.name.partition("::")
    if space != "aten":
        return func, args, kwargs
    if name == "_to_copy" and set(kwargs) == {"dtype"}:
        return torch.Tensor.to, (*args, kwargs["dtype"]), {}
    if kwargs or name not in BOUND:
        return func, args, kwargs
    return BOUND[name], args, kwargs


def _spelled(value: Any, names: dict[str, Any]) -> str:
    """An argument as source."""
    if isinstance(value, Slot):
        return f"s[{value.number}]"
    if isinstance(value, list | tuple):
        inner = ",".join(_spelled(part, names) for part in value)
        return f"[{inner}]"
    if value is None or type(value) in (bool, int):
        return repr(value)
    return _named(value, names)


def _named(value: Any, names: dict[str, Any]) -> str:
    name = f"v{len(names)}"
    names[name] = value
    return name


def _put(slots: Slots, places: tuple[int | None, ...], out: Any) -> None:
    for place, result in zip(places, pytree.tree_leaves(out), strict=True):
        if place is not None:
            slots[place] = result


def filled(given: Given) -> torch.Tensor:
    """A tensor as it was given to the step: with its values, where they are known.

    Weights else, as layers draw them: matrices by the number of their inputs, vectors all 1.
    """
    sizes, strides, offset, dtype = given.look
    if given.values is not None:
        return given.values.as_strided(sizes, strides, offset)
    flat = torch.ones(given.elements, dtype=dtype)
    if dtype.is_floating_point and len(sizes) > 1:
        inputs = max(given.elements // max(sizes[0], 1), 1)
        flat.normal_(std=inputs**-0.5)
    elif not dtype.is_floating_point:
        flat.zero_()
    return flat.as_strided(sizes, strides, offset)
