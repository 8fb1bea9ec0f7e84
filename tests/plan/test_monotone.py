"""More memory never gives a smaller micro_batch: looked at in fine steps, where ways change."""

from itertools import pairwise

import pytest

from autotrain.errors import DoesNotFitError
from autotrain.plan import execution
from autotrain.plan.lengths import edges
from autotrain.plan.planner import _fitted
from autotrain.schema import ModelProfile, ModelSection

from .profiles import GIB, MIB, device, goal, machine, model
from .test_lengths import profile, varied
from .triples import Chain, traced

AGAIN = ModelSection(activation_checkpointing=True)
LONG_TAIL = [round(40 * 1.02**i) for i in range(200)]
ENDS = edges(profile(LONG_TAIL), 6, 0.1)
STEPS = 150


def lengthy(each: float, weights: float = 40 * MIB, square: float = 0.0) -> ModelProfile:
    return varied(LONG_TAIL, ENDS, each, square, weights=weights, train=4000)


def or_again(of: ModelProfile, less: float = 0.2) -> ModelProfile:
    """Traced once more with activations computed again, of which so much is left."""
    held = {
        "peak_bytes": of.parameter_bytes,
        "accumulate_peak_bytes": of.parameter_bytes + of.trainable_bytes,
    }
    more = tuple(
        t.model_copy(
            update={
                name: round(fixed + less * max(getattr(t, name) - fixed, 0))
                for name, fixed in held.items()
            }
            | {"form": AGAIN, "matmul_flops": 1.25 * t.matmul_flops}
        )
        for t in of.traces
    )
    return of.model_copy(update={"blocks": 12, "traces": (*of.traces, *more)})


def chain(*lengths: float) -> ModelProfile:
    of = Chain((40 * MIB, 80 * MIB, 4 * MIB), (MIB, 2 * MIB, MIB // 3))
    known = profile(lengths, 4000) if lengths else None
    found = tuple(
        traced(of, micro, "fp32", length) for length in lengths or (0.0,) for micro in (2, 8)
    )
    return model(
        sum(of.weights), train=4000, traces=found, lengths=known, trainable_sizes=of.weights
    )


MODELS = {
    "plain": model(400 * MIB, 30 * MIB),
    "weights, and little else": model(GIB, 2 * MIB),
    "a tape": chain(),
    "lengths": lengthy(20_000),
    "lengths, attention": lengthy(2_000, square=15),
    "lengths, heavy weights": lengthy(20_000, 800 * MIB),
    "lengths and a tape": chain(3, 5, 8, 20, 30, 60),
    "again": or_again(model(each=900 * MIB)),
    "again, light samples": or_again(model(400 * MIB, 90 * MIB)),
    "again, lengths": or_again(lengthy(200_000)),
    "again, batch norm": or_again(model(each=300 * MIB, batch_norm=True)),
    "again, samples tied together": or_again(model(each=300 * MIB, mixes=True)),
}


class Found(dict):
    """What is decided with so many bytes free, each looked at once; None: refused."""

    def __init__(self, kind, of, wish):
        self.kind, self.of, self.wish = kind, of, wish

    def __missing__(self, free: int):
        own = device(self.kind, free, native_dtypes=("fp32",))
        hardware = machine(own, device(), ram=4 * free)
        try:
            sizing = _fitted(hardware, own, self.of, self.wish)
        except DoesNotFitError:
            self[free] = None
        else:
            assert not execution.over(sizing)
            again = sizing.ledger.value("model.activation_checkpointing")
            self[free] = (sizing.count("batch.micro_batch"), again, bool(sizing.buckets()))
        return self[free]

    def between(self, low: int, high: int, steps: int) -> None:
        """Steps of one ratio, and where two neighbours differ in kind, closer to the edge."""
        grid = [round(low * (high / low) ** (step / steps)) for step in range(steps + 1)]
        for one, other in pairwise(grid):
            self.edge(one, other)

    def edge(self, low: int, high: int, times: int = 12) -> None:
        if times and self.way(low) != self.way(high):
            middle = (low + high) // 2
            alike = self.way(middle) == self.way(low)
            self.edge(*((middle, high) if alike else (low, middle)), times - 1)

    def way(self, free: int) -> tuple[bool, ...]:
        found = self[free]
        return found[1:] if found else ()

    def sizes(self) -> list[int]:
        return [(self[free] or (0,))[0] for free in sorted(self)]


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
@pytest.mark.parametrize("name", MODELS)
def test_micro_batch_never_falls_as_memory_grows(name, kind):
    found = Found(kind, MODELS[name], goal())
    found.between(GIB // 2, 64 * GIB, STEPS)
    assert found.sizes() == sorted(found.sizes())
    assert found.sizes()[-1] > max(found.sizes()[0], 1)


@pytest.mark.parametrize(
    "user", [{"batch__global_batch": 60}, {"batch__accum_steps": 4}, {"loader__workers": 4}]
)
@pytest.mark.parametrize("name", ["lengths", "again, light samples", "again, lengths"])
def test_nor_where_a_part_of_it_is_given(name, user):
    found = Found("cuda", MODELS[name], goal(**user))
    found.between(GIB // 2, 64 * GIB, STEPS // 2)
    assert found.sizes() == sorted(found.sizes())


def test_where_none_fits_otherwise_one_is_computed_again_and_two_for_batch_norm():
    def least(name):
        found = Found("cuda", MODELS[name], goal())
        found.between(GIB // 2, 64 * GIB, STEPS)
        return max(size for size, again, _ in filter(None, found.values()) if again)

    assert least("again") == 1
    assert least("again, batch norm") == 2
    assert least("again, samples tied together") == 32


def test_a_batch_that_fits_whole_and_not_in_parts_is_taken_whole():
    """The one case where more memory takes fewer, by as much of it as one sample takes."""
    of, fused = or_again(model(400 * MIB, 13 * MIB), 0.9), {"optimizer__implementation": "fused"}
    found = Found("cuda", of, goal(**fused))
    found.edge(GIB, 4 * GIB, times=30)
    first = min(free for free in found if found[free])
    assert found[first] == (32, True, False)
    own = device("cuda", first, native_dtypes=("fp32",))
    parts = goal(batch__accum_steps=2, batch__micro_batch=1, **fused)
    assert execution.over(_fitted(machine(own, device()), own, of, parts))
