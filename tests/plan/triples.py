"""Machines x data x models x wishes, drawn: as unlike one another as they can be."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from autotrain.files import shipped_names
from autotrain.probe.machines import load_machine
from autotrain.schema import (
    DatasetProfile,
    Device,
    Disk,
    Goal,
    HardwareProfile,
    LengthProfile,
    ModelProfile,
    ModelSection,
    Neighbour,
    Plan,
    StepTrace,
    Timing,
    Work,
)

from .profiles import GIB, MIB, between, dataset, device, goal, machine, machines, model, rates

AGAIN = ModelSection(activation_checkpointing=True)
# Of each activation, what a step that computes them again keeps.
KEPT = 8


class Chain(NamedTuple):
    """A model of layers in a row: bytes of each one's weights and, of a sample (of length 1,
    where they have one), of its activations."""

    weights: tuple[int, ...]
    each: tuple[int, ...]

    def activations(self, dtype: str, length: float, *, again: bool) -> tuple[int, ...]:
        """Bytes of a sample's, layer by layer."""
        share = (0.5 if dtype in ("bf16", "fp16") else 1.0) * (length or 1.0)
        return tuple(max(int(share * size) // (KEPT if again else 1), 1) for size in self.each)


class Triple(NamedTuple):
    """What a plan is made for. `chain`: what the model truly is."""

    hardware: HardwareProfile
    data: DatasetProfile
    model: ModelProfile
    chain: Chain
    goal: Goal


# --- machines ------------------------------------------------------------------------------


@st.composite
def shipped(draw) -> HardwareProfile:
    """One of the machines that come along, with more or less of everything."""
    found = load_machine(draw(st.sampled_from(shipped_names("profiles"))))
    devices = [
        faster(each, draw(st.floats(0.05, 20))).model_copy(
            update={"free_bytes": draw(between(GIB // 4, 2 * each.total_bytes))}
        )
        for each in found.devices
    ]
    cores = draw(st.integers(1, 128))
    cpu = found.cpu.model_copy(update={"cores": cores, "logical": 2 * cores})
    return found.model_copy(update={"devices": tuple(devices), "cpu": cpu})


@st.composite
def timed(draw) -> HardwareProfile:
    """A machine that was probed: operators of it were timed, at one thread and at all of them."""
    cores, times = draw(st.integers(1, 64)), draw(st.floats(0.01, 100))
    rows = [
        Timing(kind, dtype, threads, flops, size, shape, times * seconds / threads**0.7)
        for threads in sorted({1, cores})
        for dtype in ("fp32", "bf16")
        for kind, flops, size, shape, seconds in (
            ("matmul", 2e6, 5e4, (1, 100, 100, 100), 4e-5),
            ("matmul", 2e9, 1.2e7, (1, 1000, 1000, 1000), 2e-2),
            ("elementwise", 0.0, 1e4, (), 4e-6),
            ("elementwise", 0.0, 1e7, (), 1e-3),
            ("overhead", 0.0, 0.0, (), 2e-6),
        )
    ]
    own = rates().model_copy(update={"timings": tuple(rows)})
    free = draw(between(GIB, 100 * GIB))
    return machine(device(free=free, rates=own), cores=cores, ram=2 * free)


@st.composite
def odd(draw) -> HardwareProfile:
    """A machine that is not all one would wish: cards that others use, a quota, a full disk."""
    found = draw(machines())
    first = found.devices[0]
    update: dict[str, Any] = {"battery": draw(st.none() | st.booleans())}
    if first.kind in ("cuda", "rocm"):
        others = [
            first.model_copy(update={"index": index, "free_bytes": draw(between(GIB, 100 * GIB))})
            for index in range(1, draw(st.integers(2, 4)))
        ]
        taken = Neighbour(pid=7, name="another", used_bytes=GIB)
        first = first.model_copy(update={"neighbours": (taken,)})
        update["devices"] = (first, *others, *found.devices[1:])
    if draw(st.booleans()):
        low = first.rates.matmul["fp32"]
        own = first.rates.model_copy(update={"matmul": {"bf16": 2 * low}})
        first = first.model_copy(update={"rates": own})
        update["devices"] = (first, *update.get("devices", found.devices)[1:])
    if draw(st.booleans()):
        free = draw(between(64 * MIB, 20 * GIB))
        update["disk"] = Disk(path="/", total_bytes=2 * free, free_bytes=free, write_bandwidth=1e5)
    if draw(st.booleans()):
        update["ram_available_bytes"] = draw(between(MIB, found.ram_total_bytes))
        cpu = found.cpu.model_copy(update={"cores": 1, "logical": 64})
        update["cpu"] = cpu
    return found.model_copy(update=update)


# --- models --------------------------------------------------------------------------------


def tape(weights: tuple[int, ...], each: tuple[int, ...], micro: int) -> tuple[list[int], tuple]:
    """A step of a chain of layers: weights, a batch, activations kept for their gradients."""
    story: list[int] = []
    alive: dict[object, int] = {}

    def born(key: object, size: int) -> None:
        alive[key] = sum(event >= 0 for event in story)
        story.append(size)

    def dies(key: object) -> None:
        story.append(-1 - alive.pop(key))

    def layers(later: bool) -> None:
        for layer, size in enumerate(each):
            born(("activation", layer), size * micro)
        for layer, size in reversed(list(enumerate(weights))):
            dies(("activation", layer))
            born(("new", layer) if later else ("gradient", layer), size)
            if later:
                dies(("new", layer))

    for layer, size in enumerate(weights):
        born(("weight", layer), size)
    marks = [len(story)]
    born("batch", each[0] * micro)
    for later in (False, True):
        marks.append(len(story))
        layers(later)
    for layer in range(len(weights)):
        dies(("gradient", layer))
    marks.append(len(story))
    born("forward", each[0] * micro)
    dies("forward")
    return story, tuple(marks)


def peak(story: list[int], until: int) -> int:
    sizes, now, most = [], 0, 0
    for event in story[:until]:
        sizes += [event] if event >= 0 else []
        now += event if event >= 0 else -sizes[-1 - event]
        most = max(most, now)
    return most


def traced(
    chain: Chain, micro: int, dtype: str, length: float = 0.0, *, again: bool = False
) -> StepTrace:
    weights, each = chain.weights, chain.activations(dtype, length, again=again)
    story, marks = tape(weights, each, micro)
    more = 1.25 if again else 1.0
    flops, moved = more * 6.0 * micro * sum(weights) / 4, 4.0 * micro * sum(each)
    work = (
        Work("matmul", dtype, 3 * len(each), flops / 3 / len(each), moved / 9, (1, micro, 64, 64)),
        Work("elementwise", dtype, 10 * len(each), 0.0, moved / 10),
    )
    return StepTrace(
        micro_batch=micro,
        length=length,
        dtype=dtype,
        form=AGAIN if again else ModelSection(),
        peak_bytes=peak(story, marks[2]),
        accumulate_peak_bytes=peak(story, marks[3]),
        evaluate_peak_bytes=sum(weights) + 2 * each[0] * micro,
        batch_bytes=each[0] * micro,
        matmul_flops=flops,
        convolution_flops=0.0,
        moved_bytes=moved,
        ops=20 * len(each),
        work=work,
        tape=tuple(story),
        marks=marks,
    )


def true_peak(plan: Plan, chain: Chain, micro: int, length: float) -> int:
    """Bytes of the tensors of a step of so many samples: counted, not predicted."""
    again, dtype = plan.model.activation_checkpointing, plan.precision.dtype
    story, marks = tape(chain.weights, chain.activations(dtype, length, again=again), micro)
    return peak(story, marks[2 + (plan.batch.accum_steps > 1)])


def batches(plan: Plan, triple: Triple) -> list[tuple[int, float]]:
    """(micro_batch, length of its longest sample) of each sort that the plan makes."""
    known, cut = triple.model.lengths, plan.batch
    if cut.buckets is not None:
        return [(micro, end) for end, micro in cut.buckets]
    return [(cut.micro_batch, known.maximum if known else 0.0)]


def traced_more(plan: Plan, triple: Triple) -> Triple:
    """With a trace of each sort of batch that the plan makes."""
    again, dtype = plan.model.activation_checkpointing, plan.precision.dtype
    same = "fp32" if dtype == "tf32" else dtype
    new = [
        traced(triple.chain, micro, same, length, again=again)
        for micro, length in batches(plan, triple)
    ]
    seen = {(t.form, t.dtype, t.micro_batch, t.length): t for t in (*triple.model.traces, *new)}
    return triple._replace(model=triple.model.model_copy(update={"traces": (*seen.values(),)}))


@st.composite
def lengths(draw, count: int) -> LengthProfile:
    """Of a few lengths, or of many, most of them short."""
    points = draw(st.lists(st.floats(1, 200), min_size=2, max_size=20))
    if draw(st.booleans()):
        points = [1.0 + 199.0 * (rank / 99) ** draw(st.integers(1, 6)) for rank in range(100)]
    mean = sum(points) / len(points)
    return LengthProfile(count=count, read=count, mean=mean, points=tuple(sorted(points)))


@st.composite
def chains(draw) -> tuple[Chain, ModelProfile]:
    """A chain of layers that was traced with its tape; its samples have lengths, or have not.

    Where its activations can be computed again, that was traced too.
    """
    count = draw(st.integers(1, 6))
    sizes = st.tuples(*[between(4, 64 << 20).map(lambda n: 4 * n)] * count)
    chain = Chain(draw(sizes), draw(sizes))
    train, held = draw(between(2, 10**6)), sum(chain.weights)
    known = draw(st.none() | lengths(train))
    seen = sorted({known.points[i] for i in (0, len(known.points) // 2, -1)}) if known else [0.0]
    forms = (False, True) if draw(st.booleans()) else (False,)
    return chain, model(
        held, sum(chain.each), train, draw(st.integers(0, 10**4)), tensors=count,
        largest_parameter_bytes=max(chain.weights), trainable_sizes=chain.weights,
        sample_seconds=draw(st.floats(0, 0.1)), sample_bytes=draw(between(1, 64 << 20)),
        stacks=draw(st.booleans()), batch_norm=draw(st.booleans()),
        mixes=draw(st.integers(0, 5)) == 0, uneven=draw(st.integers(0, 3)) == 0,
        cached_bytes=draw(st.sampled_from([0, 0, 0, MIB, GIB, 90 * GIB])),
        blocks=count * (len(forms) - 1),
        traces=tuple(
            traced(chain, micro, dtype, length, again=again)
            for again in forms
            for dtype in ("fp32", "bf16", "fp16")
            for length in seen
            for micro in (2, 8)
        ),
        lengths=known,
    )  # fmt: skip


# --- wishes --------------------------------------------------------------------------------

_WISHES: dict[str, st.SearchStrategy[Any]] = {
    "batch.accum_steps": st.integers(1, 8),
    "batch.buckets": st.none(),
    "batch.global_batch": between(1, 512),
    "batch.micro_batch": between(1, 64),
    "device.index": st.integers(0, 1),
    "evaluate.every_epochs": st.integers(1, 5),
    "loader.keep": st.sampled_from([None, "ram", "device"]),
    "loader.workers": st.integers(0, 4),
    "memory.budget_bytes": between(GIB, 100 * GIB),
    "memory.share": st.floats(0.3, 1),
    "model.activation_checkpointing": st.booleans(),
    "optimizer.name": st.sampled_from(["sgd", "adam", "rprop"]),
    "precision.dtype": st.sampled_from(["fp32", "tf32", "bf16", "fp16"]),
    "train.epochs": st.integers(1, 200),
    "train.ema_decay": st.just(0.999),
}


@st.composite
def goals(draw) -> Goal:
    """What a user fixed: mostly nothing, else one or two settings."""
    names = draw(st.lists(st.sampled_from(sorted(_WISHES)), max_size=2, unique=True))
    return goal(**{name: draw(_WISHES[name]) for name in names})


@st.composite
def triples(draw) -> Triple:
    chain, found = draw(chains())
    hardware = draw(st.one_of(shipped(), timed(), machines(), odd()))
    data = dataset(found.train_count + found.valid_count)
    return Triple(hardware, data, found, chain, draw(st.just(goal()) | goals()))


# --- variations ----------------------------------------------------------------------------


def faster(of: Device, times: float) -> Device:
    """Everything that it computes or moves, `times` as fast."""
    old = of.rates
    new = old.model_copy(
        update={
            "matmul": {dtype: rate * times for dtype, rate in old.matmul.items()},
            "convolution": {dtype: rate * times for dtype, rate in old.convolution.items()},
            "bandwidth": old.bandwidth * times,
            "op_seconds": old.op_seconds / times,
            "timings": tuple(row._replace(seconds=row.seconds / times) for row in old.timings),
        }
    )
    return of.model_copy(update={"rates": new})


def multiplying_faster(of: Device, times: float) -> Device:
    """Products alone are `times` as fast."""
    old = of.rates
    new = old.model_copy(
        update={
            "matmul": {dtype: rate * times for dtype, rate in old.matmul.items()},
            "timings": tuple(
                row._replace(seconds=row.seconds / times) if row.kind == "matmul" else row
                for row in old.timings
            ),
        }
    )
    return of.model_copy(update={"rates": new})


def roomier(of: HardwareProfile, times: float) -> HardwareProfile:
    """`times` the memory, of its devices and of the machine."""
    devices = tuple(
        each.model_copy(
            update={
                "free_bytes": int(each.free_bytes * times),
                "total_bytes": int(each.total_bytes * times),
            }
        )
        for each in of.devices
    )
    return of.model_copy(
        update={
            "devices": devices,
            "ram_total_bytes": int(of.ram_total_bytes * times),
            "ram_available_bytes": int(of.ram_available_bytes * times),
        }
    )
