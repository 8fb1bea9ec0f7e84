"""How many of oneDNN's kernels a run keeps, and what those of many lengths take."""

from __future__ import annotations

import pytest

from autotrain.plan import kernels, race
from autotrain.schema import LengthProfile, Plan, Race, Raced, RacedCut, Variant, Work
from autotrain.units import MIB

from .profiles import device, goal, machine, model, planned, reason

KEY = "device.kernels"
# Seconds to make one kernel of a convolution, and of a product in half precision.
CONVOLUTION, PRODUCT = 0.24e-3, 0.47e-3
CPU = machine(device("cpu", free=8 << 30))


def at_work(*work: Work, **more):
    plain = model()
    traces = tuple(t.model_copy(update={"work": work}) for t in plain.traces)
    return plain.model_copy(update={"traces": traces, **more})


def layers(kind: str, many: int, dtype: str = "fp32") -> list[Work]:
    return [Work(kind, dtype, 1, 1e6, 1e6, (1, 8, width + 1, 16)) for width in range(many)]


def many_lengths() -> LengthProfile:
    return LengthProfile(count=100, read=100, mean=50.0, points=tuple(map(float, range(1, 101))))


def test_each_layers_shape_counts_once_with_all_its_parts():
    few = kernels.needed(at_work(*layers("convolution", 30)), "fp32")
    assert kernels.needed(at_work(*layers("convolution", 60)), "fp32") == 2 * few
    again = [*layers("convolution", 30)] * 5
    assert kernels.needed(at_work(*again), "fp32") == few
    backward = layers("convolution_backward", 30)
    assert kernels.needed(at_work(*again, *backward), "fp32") > 2 * few


@pytest.mark.parametrize("differ", [{"lengths": many_lengths()}, {"uneven": True}])
def test_where_sizes_differ_one_steps_are_enough(differ):
    layer = layers("convolution", 10)
    assert kernels.needed(at_work(*layer, **differ), "fp32") == 30
    assert kernels.needed(at_work(*layer), "fp32") == 60
    assert kernels.needed(at_work(*layer[:1], **differ), "fp32") == kernels.LEAST
    made = planned(CPU, at_work(*layer, **differ), goal(batch__buckets=None))
    assert "a step needs 30" in reason(made, KEY).formula


def test_products_in_fp32_are_another_librarys():
    assert kernels.needed(at_work(*layers("matmul", 100)), "fp32") == kernels.LEAST_AGAIN
    assert kernels.needed(at_work(*layers("matmul", 100, "bf16")), "fp32") == 200


def test_a_trace_that_tells_no_work_leaves_it_to_the_library():
    assert kernels.needed(at_work(), "fp32") == 0
    assert planned(CPU, at_work()).device.kernels is None


def test_a_plan_for_a_processor_says_how_many_and_why():
    made = planned(CPU, at_work(*layers("rnn", 40)))
    assert made.device.kernels == 2 * 40 * 4
    assert "320 are what two steps need" in reason(made, KEY).formula
    assert planned(CPU, at_work(*layers("rnn", 40)), goal(device__kernels=7)).device.kernels == 7


def test_a_graphics_card_has_none_of_them():
    gpu = machine(device("cuda", free=8 << 30, native_dtypes=("fp32",)))
    assert planned(gpu, at_work(*layers("rnn", 40))).device.kernels is None


@pytest.mark.parametrize("key", ["expected", "high"])
def test_where_lengths_differ_the_peak_holds_as_many_as_are_kept(key):
    alike, differ = at_work(*layers("rnn", 4)), at_work(*layers("rnn", 4), lengths=many_lengths())

    def peak(seen, count):
        wish = goal(device__kernels=count, batch__micro_batch=8, batch__buckets=None)
        return getattr(planned(CPU, seen, wish).predicted.device_peak_bytes, key)

    assert peak(alike, 1000) == peak(alike, 100)
    assert peak(differ, 1000) - peak(differ, 100) > 900 * 0.3 * MIB


def test_the_reason_says_whose_business_it_is_where_nothing_is_set():
    gpu = machine(device("cuda", free=8 << 30, native_dtypes=("fp32",)))
    assert "no processor" in reason(planned(gpu, at_work()), KEY).formula
    assert "the trace does not tell" in reason(planned(CPU, at_work()), KEY).formula


def in_few_sizes(sizes: int = 10, layers_: int = 10):
    return at_work(*layers("convolution", layers_), lengths=many_lengths(), sizes=sizes)


def test_where_batches_come_in_few_sizes_those_of_all_are_kept():
    wish = goal(batch__micro_batch=8, batch__buckets=None)
    made = planned(CPU, in_few_sizes(), wish)
    assert made.device.kernels == 30 * 10
    assert "those of all are kept" in reason(made, KEY).formula
    # More than the library would ever keep, or not known to come again: as few as do.
    assert planned(CPU, in_few_sizes(100), wish).device.kernels == 30
    assert planned(CPU, in_few_sizes(0), wish).device.kernels == 30
    gpu = machine(device("cuda", free=8 << 30, native_dtypes=("fp32",)))
    assert planned(gpu, in_few_sizes(), wish).device.kernels is None


def test_nothing_else_gives_way_to_kernels():
    """Just as much memory as a plan takes without them: the same plan, with as few as do."""
    plain = planned(CPU, in_few_sizes(0)).predicted.device_peak_bytes.high
    for more in (0, 100 * MIB, 200 * MIB):
        tight = machine(device("cpu", free=(plain + more) / 0.8))
        few, all_of_them = (planned(tight, in_few_sizes(sizes)) for sizes in (0, 10))
        assert few.batch == all_of_them.batch
        assert all_of_them.predicted.device_peak_bytes.high <= plain + more + 1


def test_kernels_that_are_made_anew_take_time_and_kept_ones_none():
    few, unknown = in_few_sizes(), in_few_sizes(0)
    each = 30 * CONVOLUTION
    assert kernels.making_seconds(unknown, "fp32", 30, 0) == pytest.approx(each)
    assert kernels.making_seconds(few, "fp32", 30, 0) == pytest.approx(each)
    assert kernels.making_seconds(few, "fp32", 299, 0) == pytest.approx(each)
    assert kernels.making_seconds(few, "fp32", 300, 0) == 0
    assert kernels.making_seconds(few, "fp32", 300, 2) > 0  # two buckets: two numbers of samples
    assert kernels.making_seconds(few, "fp32", 0, 0) == 0  # the library's own thousand
    alike = at_work(*layers("convolution", 10))
    assert kernels.making_seconds(alike, "fp32", 32, 0) == 0


def test_a_step_takes_the_time_that_its_kernels_take_to_make():
    def made(count: int) -> Plan:
        given = {"batch__micro_batch": 8, "batch__buckets": None, "loader__workers": 0}
        wish = goal(device__kernels=count, **given)
        return planned(CPU, in_few_sizes(), wish)

    few, all_of_them = made(30), made(300)
    gained = few.predicted.step_seconds.expected - all_of_them.predicted.step_seconds.expected
    assert gained == pytest.approx(few.batch.accum_steps * 30 * CONVOLUTION)


PLAIN, HALF = (Variant(dtype, "contiguous", 2) for dtype in ("fp32", "bf16"))


def race_of(fp32: float, bf16: float, *cuts: RacedCut) -> Race:
    runs = (Raced(PLAIN, fp32, 0.001), Raced(HALF, bf16, 0.001))
    return Race(outcome="ok", micro_batch=8, accum_steps=1, rounds=5, runs=runs, cuts=cuts)


def test_a_race_on_samples_of_one_size_is_charged_with_the_kernels_that_others_need():
    """A hundred products: MKL's in fp32, made anew for each size in bf16, traced or not."""
    parts = RacedCut(HALF, 4, 0.075)
    for seen in (products(100, uneven=True), in_fp32(products(100, uneven=True))):
        made = kernels.charged(race_of(0.100, 0.080, parts), seen, 0)
        each = 100 * PRODUCT
        assert [raced.micro_seconds for raced in made.runs] == pytest.approx([0.1, 0.08 + each])
        assert made.cuts[0].seconds == pytest.approx(0.075 + 2 * each)
        assert made.tolls == pytest.approx({"fp32": 0.0, "bf16": each})
        assert race.winner(made, {}).variant == PLAIN
        assert "made anew for each size: bf16 47 ms" in race.said(made, made.runs[0], 0)


def products(many: int, **more):
    """Traced in two dtypes, in each of which the products are in it."""
    both = (at_work(*layers("matmul", many, dtype), **more).at(dtype) for dtype in ("fp32", "bf16"))
    return model(**more).model_copy(update={"traces": tuple(t for each in both for t in each)})


def in_fp32(seen):
    return seen.model_copy(update={"traces": seen.at("fp32")})


@pytest.mark.parametrize("seen", [{}, {"uneven": True, "sizes": 10}])
def test_it_is_not_where_sizes_come_again(seen):
    held = race_of(0.100, 0.080)
    made = kernels.charged(held, products(100, **seen), 0)
    assert made.runs == held.runs
    assert not any(made.tolls.values())
    assert "made anew" not in race.said(made, made.runs[0], 0)


def test_kernels_count_for_more_where_usual_samples_are_shorter_than_the_raced_ones():
    long_tail = LengthProfile(count=100, read=100, mean=14.0, points=(10.0,) * 99 + (410.0,))
    seen = products(100, lengths=long_tail)
    each = 100 * PRODUCT
    assert kernels.toll(seen, "bf16", 1, buckets=0) == pytest.approx(410 / 14 * each)
    assert kernels.toll(seen, "bf16", 1, buckets=2) == pytest.approx(each)
