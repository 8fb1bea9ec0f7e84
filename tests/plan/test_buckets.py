"""Plans for samples that differ in length."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotrain import planfile
from autotrain.errors import AutotrainError, UsageError
from autotrain.plan import buckets
from autotrain.plan.ledger import Ledger
from autotrain.plan.lengths import edges
from autotrain.plan.planner import _sized, lengths_in_question
from autotrain.plan.sizing import Sizing

from .profiles import GIB, between, device, goal, machine, model, planned, reason, recipe
from .test_lengths import profile, varied

LONG_TAIL = [round(40 * 1.02**i) for i in range(200)]  # 40 to 2,058
UNCHANGED = ("precision", "optimizer", "schedule", "train", "evaluate", "data", "predicted")


def gpu(free=8 * GIB):
    return device("cuda", free, native_dtypes=("fp32",))


def bucketed(values=LONG_TAIL, each=20_000.0, square=0.0, train=4000, free=8 * GIB, **more):
    """A plan on a GPU whose memory is the limit, for a model traced where the planner wants."""
    ends = edges(profile(values), buckets.MOST, buckets.WASTE)
    of = varied(values, ends, each, square, train=train, **more.pop("model", {}))
    wish = goal(**more)
    return planned(machine(gpu(free)), of, wish), of


def sizing_of(plan, of, free) -> Sizing:
    hardware = machine(gpu(free))
    wish = goal(batch__global_batch=plan.batch.global_batch)
    return _sized(hardware, hardware.devices[0], of, wish)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 3000), min_size=5, max_size=200).map(sorted),
    st.floats(100, 100_000),
    st.floats(0, 100),
    between(20, 10**6),
    between(GIB, 64 * GIB),
)
def test_every_bucket_fits_longer_ones_hold_less_and_a_step_is_met(values, each, square, n, free):
    try:
        plan, of = bucketed(values, each, square, n, free)
    except AutotrainError:
        return
    cut = plan.batch
    assert cut.global_batch == cut.micro_batch * cut.accum_steps * cut.world_size
    assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes
    if cut.buckets is None:
        assert cut.target_items is None
        return
    ends, sizes = zip(*cut.buckets, strict=True)
    assert list(ends) == sorted(set(ends))
    assert ends[-1] == max(values)
    assert list(sizes) == sorted(set(sizes), reverse=True)
    assert sizes[-1] == cut.micro_batch
    assert cut.target_items == pytest.approx(cut.global_batch * of.lengths.mean, rel=1e-5)
    sizing, start = sizing_of(plan, of, free), -1.0
    for end, size in cut.buckets:
        high = sizing.device_peak(sizing.setup(size, 2, end)).high
        assert high <= plan.memory.budget_bytes
        held = [value for value in values if start < value <= end]
        # One micro-batch alone never passes the target, but where a sample alone does.
        assert size == 1 or size * sum(held) / len(held) <= cut.target_items * (1 + 1e-5)
        start = end
    assert sizing.planned().length in ends


def test_the_peak_that_is_planned_for_is_the_largest_possible_batchs():
    plan, of = bucketed(square=15.0, free=3 * GIB)
    sizing = sizing_of(plan, of, 3 * GIB)
    highs = [
        sizing.device_peak(sizing.setup(size, 2, end)).high for end, size in plan.batch.buckets
    ]
    assert plan.predicted.device_peak_bytes.high == max(highs)
    assert len(set(plan.batch.buckets)) > 2
    why = reason(plan, "batch.buckets")
    assert f"{plan.batch.buckets[0][1]} up to {plan.batch.buckets[0][0]:.4g}" in why.formula
    assert why.limited_by == "memory.budget_bytes"


def test_longer_samples_never_come_more_at_once_though_a_trace_says_that_they_could():
    ends = edges(profile(LONG_TAIL), 6, 0.1)
    of = varied(LONG_TAIL, ends, 20_000.0, train=40_000)
    heavy = [
        trace.model_copy(
            update={
                name: getattr(trace, name) * (30 if trace.length == ends[1] else 1)
                for name in ("peak_bytes", "accumulate_peak_bytes")
            }
        )
        for trace in of.traces
    ]
    of = of.model_copy(update={"traces": tuple(heavy)})
    plan = planned(machine(gpu()), of)
    sizes = [size for _, size in plan.batch.buckets]
    assert sizes == sorted(sizes, reverse=True)
    assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes


def test_short_samples_use_the_memory_that_long_ones_need():
    plan, _ = bucketed()
    sizes = [size for _, size in plan.batch.buckets]
    assert sizes[0] > 4 * sizes[-1]
    off, _ = bucketed(batch__buckets=None)
    # Both come sorted: there is a little less padding, and far less memory is needed.
    assert plan.predicted.run_seconds.expected < off.predicted.run_seconds.expected
    peak, whole = (p.predicted.tensor_peak_bytes.expected for p in (plan, off))
    assert peak < whole / 2


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 3000), min_size=2, max_size=60).map(sorted),
    st.floats(100, 100_000),
    st.floats(0, 30),
    between(160, 10**6),  # of fewer, so many more share a micro-batch that one more may be long
    between(GIB, 40 * GIB),
    st.floats(1, 30),
)
@example([16, 480], 100_000.0, 0.0, 1000, round(1.1 * GIB), 27.0)
@example([845] * 17 + [2322] * 83, 20_000.0, 0.0, 115, round(1.18 * GIB), 24.0)
@example([1, 742], 30842.0, 30.0, 148, 1318815734, 2.0)
@example([*range(5, 75, 5), 762, 1047, 2138], 13_250.0, 30.0, 95_917, 3 * GIB, 1.0)
def test_buckets_never_slow_a_run_down_and_more_memory_does_not(values, each, square, n, free, by):
    def run(free, **more):
        held_out = {"valid_sorted": True}
        plan, _ = bucketed(values, each, square, n, free, train__epochs=10, model=held_out, **more)
        return plan.predicted.run_seconds.expected

    try:
        seconds = run(free)
    except AutotrainError:
        return
    assert seconds <= run(free, batch__buckets=None) * 1.02
    assert run(int(by * free)) <= seconds * 1.15  # of six micro-batches one more is long


@pytest.mark.parametrize("samples", [500, 1000, 8000])
def test_few_short_samples_get_a_smaller_bucket_and_not_none(samples):
    values = [16] * 500 + [480] * 500
    plan, _ = bucketed(values, train=samples, free=40 * GIB)
    off, _ = bucketed(values, train=samples, free=40 * GIB, batch__buckets=None)
    (_, short), (_, long) = plan.batch.buckets
    assert long < short <= samples / 2 / buckets.FULL
    one, other = (
        made.predicted.step_seconds.expected / made.batch.global_batch for made in (plan, off)
    )
    assert one < 1.05 * other  # which come sorted too, all as many at once


def test_padding_that_is_not_avoided_is_told():
    plan, _ = bucketed(train=16)  # two micro-batches of eight: one of the longer half
    assert plan.batch.buckets is None
    (note,) = [each for each in plan.notes if "padding" in each]
    assert note.startswith("about 56 % of what is computed is padding")
    assert note.endswith("16 samples are too few: 8 a step, under 10 steps an epoch")
    off, _ = bucketed(train=16, batch__buckets=None)
    assert not [each for each in off.notes if "padding" in each]


@given(st.integers(0, 4), st.booleans())
def test_without_lengths_or_with_buckets_off_the_plan_is_what_it_was(micros, mixes):
    sizes = tuple(2 + 3 * i for i in range(micros + 1))
    plain = varied(LONG_TAIL, [2058], micros=sizes, mixes=mixes)
    silent = plain.model_copy(update={"lengths": None})
    hardware = machine(gpu(4 * GIB))
    wish = {"evaluate__every_epochs": 1}  # which follows from how long a step takes
    before = planned(hardware, silent, goal(**wish))
    for plan in (
        planned(hardware, plain, goal(batch__buckets=None, **wish)),
        planned(hardware, plain, goal(**wish)),  # traced at one length only
    ):
        assert plan.batch == before.batch
        assert plan.batch.buckets is None
        for section in UNCHANGED:
            assert told(plan, section) == told(before, section)
        # But for a usual micro-batch, which is not as long as the longest sample.
        assert plan.predicted.step_seconds.expected < before.predicted.step_seconds.expected


def told(plan, section):
    return getattr(plan, section).model_dump(exclude={"step_seconds", "run_seconds"})


def test_a_step_takes_what_its_usual_longest_sample_takes():
    """A run sorts samples by length, whatever their number: of two lengths that are as frequent
    every second micro-batch is long."""
    of = varied([60] * 50 + [480] * 50, [480])
    without = of.model_copy(update={"lengths": None})

    def step(of, micro):
        plan = planned(machine(), of, goal(batch__micro_batch=micro, batch__buckets=None))
        return plan.predicted.step_seconds.expected

    gains = [step(of, micro) / step(without, micro) for micro in (1, 2, 4, 16)]
    assert all(0.5 < gain < 0.75 for gain in gains)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch__micro_batch": 4}, "batch.micro_batch is given"),
        ({"batch__accum_steps": 2}, "batch.accum_steps is given"),
        ({"batch__buckets": None}, "you set off"),
        ({"model": {"mixes": True}}, "ties samples together"),
        ({"train": 79}, "too few: 8 a step, under 10 steps"),
        ({"values": [100, 101, 102]}, "1.01 x the mean"),
    ],
)
def test_where_there_are_no_buckets_the_plan_says_why(change, said):
    plan, _ = bucketed(**change)
    assert plan.batch.buckets is None
    assert plan.batch.target_items is None
    assert said in reason(plan, "batch.buckets").formula


def test_a_recipes_micro_batch_holds_at_every_length():
    ends = edges(profile(LONG_TAIL), 6, 0.1)
    of = varied(LONG_TAIL, ends, 20_000.0)
    tried = recipe(batch__micro_batch=8, batch__global_batch=16)
    assert planned(machine(gpu()), of, goal(tried)).batch.buckets is None


def test_a_target_of_items_gives_the_samples_of_a_step():
    plan, of = bucketed(batch__target_items=40_000.0)
    assert plan.batch.target_items == 40_000
    assert plan.batch.global_batch == pytest.approx(40_000 / of.lengths.mean, rel=0.05)


def test_buckets_of_the_users_own_are_taken_and_traced_at_their_ends():
    mine = ((500.0, 20), (2058.0, 3))
    plan, of = bucketed(batch__buckets=mine)
    assert plan.batch.buckets == mine
    assert plan.batch.micro_batch == 3
    assert buckets.to_check(plan.batch, of) == ((20, 500.0), (3, 0.0))
    ledger = Ledger(goal(batch__buckets=mine), 4000, "cuda")
    assert buckets.lengths_to_trace(ledger, of, on_cpu=False) == (500.0,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch__buckets": ((9.0, 2), (9.0, 1))}, "do not rise"),
        ({"batch__buckets": ((9.0, 2),), "batch__micro_batch": 3}, "two ways to set the same"),
    ],
)
def test_buckets_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        bucketed(**settings)
    with pytest.raises(UsageError, match=r"batch\.buckets: the task does not say"):
        planned(of=model(), wish=goal(batch__buckets=((9.0, 2),)))


# --- what is traced ------------------------------------------------------------------------


def test_lengths_are_traced_only_where_buckets_are_in_question():
    hardware, of = machine(gpu()), varied(LONG_TAIL, [2058])
    wanted = lengths_in_question(hardware, of, goal())
    assert 3 <= len(wanted) < buckets.MOST
    assert max(wanted) < 2058
    for wish in (goal(batch__micro_batch=4), goal(batch__buckets=None)):
        assert lengths_in_question(hardware, of, wish) == ()
    assert lengths_in_question(hardware, model(), goal()) == ()
    slow = tuple(t.model_copy(update={"ops": 40_000}) for t in of.traces)
    few = lengths_in_question(hardware, of.model_copy(update={"traces": slow}), goal())
    assert len(few) == buckets.LEAST - 1


def test_a_plan_without_buckets_is_checked_at_its_micro_batch():
    plan = planned()
    assert buckets.to_check(plan.batch, model()) == ((plan.batch.micro_batch, 0.0),)


# --- as a file and as text -----------------------------------------------------------------


def test_buckets_are_read_back_from_a_readable_file(tmp_path):
    plan, _ = bucketed()
    path = tmp_path / "plan.toml"
    planfile.save(plan, path)
    assert planfile.load(path).batch == plan.batch
    end, size = plan.batch.buckets[0]
    assert f"\n    [{end}, {size}],\n" in path.read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"micro_batch": 1, "accum_steps": 64, "global_batch": 64}, "is not batch.micro_batch 1"),
        ({"target_items": None}, "batch.target_items: missing"),
        ({"buckets": ((9.0, 2), (3.0, 1))}, "do not rise"),
    ],
)
def test_an_edited_file_that_contradicts_itself_is_refused(tmp_path, change, said):
    plan, _ = bucketed()
    path = tmp_path / "plan.toml"
    batch = plan.batch.model_copy(update=change)
    planfile.save(plan.model_copy(update={"batch": batch}), path)
    with pytest.raises(UsageError, match=r"plan\.toml: batch") as caught:
        planfile.load(path)
    assert any(said in fault for fault in caught.value.faults)


def test_a_person_is_told_of_padding_and_of_lengths_that_were_not_read():
    plan, of = bucketed()
    assert any("of what is computed is padding" in note for note in plan.notes)
    part = of.lengths.model_copy(update={"read": 200, "count": 4000})
    hardware = machine(gpu())
    notes = planned(hardware, of.model_copy(update={"lengths": part})).notes
    assert any("200 of 4,000 lengths were read" in note for note in notes)


def test_buckets_are_set_on_the_command_line_as_the_file_shows_them():
    from autotrain.goal import parse_settings

    found, _ = parse_settings(["batch.buckets=[[400, 16], [1600.5, 4]]"])
    assert found == {"batch.buckets": ((400.0, 16), (1600.5, 4))}
    assert parse_settings(["batch.buckets=off"])[0] == {"batch.buckets": None}
    for wrong in ("[]", "[[400]]", "[[400, 0]]", "[[-1, 4]]", "8"):
        with pytest.raises(UsageError, match=r"batch\.buckets"):
            parse_settings([f"batch.buckets={wrong}"])
