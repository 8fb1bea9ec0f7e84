"""Whole plans, for any machine, model, data and wish."""

import json
import statistics
import time
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain import planfile
from autotrain.errors import AutotrainError, DoesNotFitError, UsageError
from autotrain.plan.planner import make_plan
from autotrain.schema import SETTING_SECTIONS, Plan

from .profiles import (
    GIB,
    MIB,
    between,
    dataset,
    device,
    goal,
    goals,
    machine,
    machines,
    model,
    models,
    planned,
    rates,
    reason,
    recipe,
)

PINNED = {
    "batch": ("micro_batch", "accum_steps", "global_batch"),
    "precision": ("dtype",),
    "optimizer": ("name",),
    "memory": ("budget_bytes",),
    "predicted": (
        "tensor_peak_bytes", "reserved_peak_bytes", "device_peak_bytes", "step_seconds",
        "run_seconds",
    ),
}  # fmt: skip


def attempt(hardware, of, wish):
    """The plan, or None where it is refused."""
    try:
        return make_plan(hardware, dataset(of.train_count), of, wish, version="0.1.0")
    except AutotrainError:
        return None


@settings(max_examples=200)
@given(machines(), models(), goals())
def test_any_machine_model_and_wish_gives_a_sound_plan_or_an_error_with_words(hardware, of, wish):
    plan = attempt(hardware, of, wish)
    if plan is None:
        return
    cut = plan.batch
    assert cut.global_batch == cut.micro_batch * cut.accum_steps * cut.world_size
    if "batch.micro_batch" not in wish.user:
        assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes
    for key in set(wish.user) - {"schedule.period_epochs"}:
        section, name = key.split(".")
        assert getattr(getattr(plan, section), name) == wish.user[key]
        assert reason(plan, key).kind == "user"


@settings(max_examples=100)
@given(machines(), models(), goals())
def test_every_setting_has_a_reason_with_its_value_and_nothing_else_has(hardware, of, wish):
    plan = attempt(hardware, of, wish)
    if plan is None:
        return
    for section in (*SETTING_SECTIONS, "predicted"):
        held, reasons = getattr(plan, section), plan.because[section]
        assert set(reasons) == set(type(held).model_fields)
        for name, why in reasons.items():
            value = getattr(held, name)
            shown = value.model_dump() if section == "predicted" else value
            assert why.value == shown
            assert why.formula
            assert why.source
            assert why.would_change
            assert "None" not in why.formula
    assert set(plan.because) == {*SETTING_SECTIONS, "predicted"}


@settings(max_examples=60)
@given(machines(), models(), goals())
def test_a_plan_written_as_toml_reads_back_equal(tmp_path_factory, hardware, of, wish):
    plan = attempt(hardware, of, wish)
    if plan is None:
        return
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    planfile.save(plan, path)
    back = planfile.load(path)
    assert settings_of(back) == settings_of(plan)
    assert back.predicted == plan.predicted
    assert planfile.text(back, "plan.toml") == planfile.text(plan, "plan.toml")


def settings_of(plan: Plan):
    return plan.model_dump(exclude={"because"})


def test_the_json_form_has_every_pinned_key_and_a_reason_for_it():
    data = json.loads(json.dumps(planned().model_dump(mode="json", by_alias=True)))
    for section, name in ((s, n) for s, names in PINNED.items() for n in names):
        assert data[section][name] is not None
        assert data["because"][section][name]["formula"]
        if section == "predicted":
            assert set(data[section][name]) == {"low", "expected", "high"}
            assert data[section][name]["low"] <= data[section][name]["expected"]
            assert data[section][name]["expected"] <= data[section][name]["high"]


@settings(max_examples=60)
@given(
    st.sampled_from(["cpu", "cuda", "mps"]),
    models(),
    between(GIB // 2, 64 * GIB),
    between(GIB // 2, 256 * GIB),
)
def test_more_memory_never_gives_a_smaller_micro_batch(kind, of, one, other):
    less, more = sorted((one, other))
    small = attempt(machine(device(kind, less)), of, goal())
    large = attempt(machine(device(kind, more)), of, goal())
    if small is not None:
        assert large is not None
        assert large.batch.micro_batch >= small.batch.micro_batch


@settings(max_examples=100)
@given(models(), st.floats(1, 100))
def test_a_faster_machine_never_takes_longer(of, times):
    slow = attempt(machine(device(free=64 * GIB, rates=rates(1.0)), cores=1), of, goal())
    fast = attempt(machine(device(free=64 * GIB, rates=rates(times)), cores=1), of, goal())
    if slow is not None:
        assert fast.predicted.run_seconds.expected <= slow.predicted.run_seconds.expected


def test_the_gradients_held_while_accumulating_are_counted_in_the_budget():
    """At a large model and few activations the second micro-batch peaks above the first."""
    of = model(weights=800 * MIB, each=40 * MIB, train=64)
    for free in range(4_000, 12_000, 250):
        plan = attempt(machine(device("cuda", free * MIB)), of, goal(batch__global_batch=16))
        if plan is not None:
            assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes


def test_a_recipes_micro_batch_is_cut_where_accumulating_it_would_not_fit():
    """8 fit without gradients held, so 8 x 2 must not be taken on the strength of that."""
    from .profiles import recipe

    of = model(weights=800 * MIB, each=300 * MIB, train=64)
    tried = recipe(batch__micro_batch=8, batch__global_batch=16)
    seen = set()
    for free in range(5_000, 14_000, 100):
        plan = attempt(machine(device("cuda", free * MIB)), of, goal(tried))
        if plan is not None:
            seen.add(plan.batch.micro_batch)
            assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes
    assert 8 in seen
    assert len(seen) > 2


def test_loader_workers_are_counted_in_the_budget_of_a_cpu():
    slow = model(sample_seconds=0.5)
    for free in range(900, 4_000, 100):
        plan = attempt(machine(device("cpu", free * MIB), cores=64), slow, goal())
        if plan is not None:
            assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes


@pytest.mark.parametrize("whose", ["user", "recipe"])
def test_workers_that_are_given_leave_less_to_the_batch_of_a_cpu(whose):
    def made(workers, free=4 * GIB):
        tried = [recipe(loader__workers=workers)] if whose == "recipe" else []
        wish = goal(*tried, **({} if tried else {"loader__workers": workers}))
        return planned(machine(device("cpu", free)), model(each=40 * MIB), wish)

    few, many = made(0), made(12)
    assert many.batch.micro_batch < few.batch.micro_batch
    assert many.predicted.device_peak_bytes.high <= many.memory.budget_bytes
    assert "with 12 loader workers of 120 MiB" in reason(many, "batch.micro_batch").formula
    gpu = [
        planned(machine(device("cuda", 4 * GIB)), model(each=40 * MIB), goal(loader__workers=n))
        for n in (0, 12)
    ]
    assert gpu[0].batch == gpu[1].batch  # beside a GPU they take RAM of their own
    with pytest.raises(DoesNotFitError, match="with 30 loader workers of 120 MiB") as caught:
        made(30)
    out = "--set loader.workers=auto" if whose == "user" else "--set loader.workers=0"
    assert out in caught.value.hint


@pytest.mark.parametrize(
    ("free", "wish", "said"),
    [
        (64, {}, "32 samples in each step, and memory has room for all of them at once; training"),
        (1.3, {}, "in each step, and memory has room for "),
        (64, {"batch__accum_steps": 4}, "room for all of them, but they come 8 at a time"),
    ],
)
def test_the_batchs_reason_begins_with_a_sentence_for_everyone(free, wish, said):
    plan = planned(machine(device("cuda", free * GIB)), model(each=50 * MIB), goal(**wish))
    why = reason(plan, "batch.micro_batch").formula
    cut = plan.batch
    assert why.startswith(f"the model is to learn from {cut.global_batch} samples in each step")
    assert said in why
    if free < 2:
        assert f"so they come in {cut.accum_steps} parts of {cut.micro_batch}; " in why


def test_a_thousand_plans_take_well_under_20_ms_each():
    hardware, of, wish, data = machine(), model(), goal(), dataset()
    seconds = []
    for _ in range(100):
        started = time.process_time()
        make_plan(hardware, data, of, wish, version="0.1.0")
        seconds.append(time.process_time() - started)
    assert statistics.median(seconds) < 0.020


def test_the_inputs_digests_outlast_a_second_look_at_the_same_machine_and_model():
    first = planned(machine(device(free=8 * GIB, total_bytes=9 * GIB)))
    again = planned(
        machine(device(free=7 * GIB, total_bytes=9 * GIB, rates=rates(1.1)), disk=50 * GIB),
        model(sample_seconds=2e-3, micros=(2, 8, 32)),
    )
    assert first.inputs == again.inputs
    other = planned(machine(device(free=8 * GIB, total_bytes=9 * GIB), cores=5))
    assert other.inputs.hardware != first.inputs.hardware
    larger = planned(machine(), model(weights=44 * MIB))
    assert larger.inputs.model != first.inputs.model


@pytest.mark.parametrize(
    ("free", "limit"), [(2 * GIB, "memory.budget_bytes"), (64 * GIB, "batch.global_batch")]
)
def test_the_reason_for_the_micro_batch_names_its_limit_and_the_rule_it_does_not_use(free, limit):
    why = reason(planned(machine(device("cuda", free)), model(each=200 * MIB)), "batch.micro_batch")
    assert why.limited_by == limit
    assert [other.name for other in why.beside] == ["input_bytes_rule"]
    assert why.beside[0].value > 50 * why.value


# --- what does not fit ---------------------------------------------------------------------


def refused(hardware, of, wish=None) -> DoesNotFitError:
    with pytest.raises(DoesNotFitError) as caught:
        planned(hardware, of, wish)
    assert caught.value.exit_code == 4
    return caught.value


def remedies(error: DoesNotFitError) -> list[str]:
    said = error.hint.removeprefix("what would make it fit: ")
    return [part for part in said.split(", or ") if part != "a smaller model or input"]


def roomy(of):
    """A machine whose RAM is no limit beside a GPU."""
    return machine(of, ram=1000 * GIB)


@settings(max_examples=15)
@given(
    st.sampled_from(["cpu", "cuda"]),
    st.integers(50, 6000),
    st.integers(10, 3000),
    st.floats(0.05, 0.999),
)
def test_every_remedy_that_an_error_names_makes_it_fit(kind, weights, each, short):
    of = model(weights * MIB, each * MIB, dtypes=("fp32", "bf16"))
    sizes = [1.15**i * GIB for i in range(80)]
    first = bisect_left(
        sizes, 1, key=lambda free: attempt(roomy(device(kind, free)), of, goal()) is not None
    )
    hardware = roomy(device(kind, short * sizes[first] / 1.15))
    if attempt(hardware, of, goal()) is not None:
        return
    for remedy in remedies(refused(hardware, of)):
        if remedy.startswith("a device with"):
            amount, unit = remedy.split()[3:5]
            free = float(amount) * {"MiB": MIB, "GiB": GIB}[unit]
            # The figure is rounded to three digits.
            assert planned(roomy(device(kind, free * 1.005)), of)
            assert attempt(roomy(device(kind, free * 0.97)), of, goal()) is None
        else:
            assert planned(hardware, of, with_flags(remedy))


def with_flags(remedy: str):
    from autotrain.goal import parse_settings

    pairs = [word for word in remedy.split() if word != "--set"]
    return goal(**{k.replace(".", "__"): v for k, v in parse_settings(pairs)[0].items()})


def test_an_error_says_what_one_sample_needs_and_what_there_is():
    error = refused(machine(device("cuda", 2 * GIB)), model(weights=1 * GIB, each=512 * MIB))
    assert "one sample needs 4." in error.message
    assert "the budget on a cuda is 1.8 GiB" in error.message


def test_a_remedy_that_does_not_help_is_not_named():
    error = refused(roomy(device("cuda", 1 * GIB)), model(weights=20 * GIB))
    assert len(remedies(error)) == 1
    assert remedies(error)[0].startswith("a device with")


def test_a_setting_of_the_users_own_that_stands_in_the_way_is_named():
    error = refused(machine(), model(), goal(memory__budget_bytes=100 * MIB))
    assert remedies(error) == ["--set memory.budget_bytes=auto"]


def test_a_batch_that_cannot_be_cut_is_refused_with_the_batch_that_fits():
    of = model(each=256 * MIB, mixes=True)
    error = refused(machine(device("cuda", 6 * GIB)), of, goal(batch__global_batch=256))
    assert "256 samples at once need" in error.message
    assert "--set batch.global_batch=auto" in remedies(error)


def test_a_device_that_the_machine_lacks_is_named_with_those_it_has():
    with pytest.raises(AutotrainError, match="no device cuda:0") as caught:
        planned(wish=goal(device__kind="cuda"))
    assert caught.value.hint == "it has cpu:0"


def test_the_second_gpu_is_taken_by_its_index_not_by_its_place():
    both = machine(device("cuda"), device("cuda", 12 * GIB, index=1), device("cpu"))
    assert planned(both, wish=goal(device__index=1)).memory.budget_bytes == int(0.9 * 12 * GIB)
    with pytest.raises(AutotrainError, match="no device cuda:2"):
        planned(both, wish=goal(device__index=2))


# --- data ----------------------------------------------------------------------------------


@given(st.integers(2, 3000), st.floats(0.01, 0.99))
def test_the_held_out_share_is_what_the_run_will_hold_out(total, share):
    from autotrain.plan import choices
    from autotrain.plan.ledger import Ledger
    from autotrain.task import hold_out

    ledger = Ledger(goal(data__valid_share=share), total, "cpu")
    train, valid = choices.data(ledger, model(train=total, valid=0))
    assert (train, valid) == tuple(map(len, hold_out(total, share, 0)))


def test_one_sample_alone_cannot_be_planned_for():
    with pytest.raises(AutotrainError, match="1 sample cannot be split"):
        planned(of=model(train=1, valid=0))
    assert planned(of=model(train=1, valid=1)).batch.global_batch == 1


def test_validation_cannot_be_turned_off_where_the_task_brings_none():
    with pytest.raises(UsageError, match=r"data\.valid_share: off"):
        planned(of=model(valid=0), wish=goal(data__valid_share=None))


# --- notes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule__factor": 0.3}, "schedule.factor is set, and the cosine schedule does not"),
        ({"schedule__period_steps": 9}, "schedule.period_steps is set, and the cosine schedule"),
        ({"schedule__period_epochs": 9}, "schedule.period_steps is set, and the cosine schedule"),
        ({"optimizer__momentum": 0.5}, "optimizer.momentum is set, and adamw does not use it"),
        ({"optimizer__name": "sgd", "optimizer__betas": (0.9, 0.9)}, "optimizer.betas is set"),
        ({"data__valid_share": 0.5}, "data.valid_share is set, and the task brings validation"),
        ({"loader__workers": 0, "loader__prefetch": 4}, "loader.prefetch is set, and no loader"),
        ({"batch__micro_batch": 4000}, "more than the budget of 6.4 GiB"),
        ({"memory__budget_bytes": 20 * GIB}, "20 GiB; 8 GiB are free"),
        ({"precision__dtype": "bf16"}, "a cpu does not compute bf16 natively"),
        ({"batch__micro_batch": 2000}, "batch.micro_batch is 2,000, and there are 1,000 samples"),
        ({"batch__global_batch": 2000}, "batch.global_batch is 2,000, and there are 1,000 samples"),
        ({"device__threads": 64}, "device.threads is 64, and there are 4 cores to use: more"),
        ({"loader__workers": 30}, "loader.workers is 30, and there are 4 cores to use"),
        ({"schedule__warmup_steps": 10**6}, "schedule.warmup_steps is 1,000,000, and there are"),
        ({"checkpoint__every_epochs": 999}, "checkpoint.every_epochs is 999, and there are 94 ep"),
        ({"evaluate__every_steps": 10**6}, "evaluate.every_steps is 1,000,000, and there are"),
        ({"early_stop__patience": 1000}, "patience is 1,000, and there are 32 evaluations in"),
        ({"checkpoint__keep": 900}, "900 kept, and up to 3 others, checkpoints take up to"),
    ],
)
def test_a_setting_that_does_nothing_or_asks_too_much_is_said(settings, said):
    plan = planned(of=model(dtypes=("fp32", "bf16")), wish=goal(**settings))
    assert any(said in note for note in plan.notes), plan.notes


def test_as_much_as_there_is_needs_no_note():
    wish = goal(
        batch__global_batch=1000, device__threads=4, train__epochs=5, schedule__warmup_steps=5,
        checkpoint__every_epochs=5, evaluate__every_epochs=1, early_stop__patience=5,
    )  # fmt: skip
    assert planned(wish=wish).notes == ()


def test_a_plain_plan_needs_no_notes():
    assert planned().notes == ()


def test_batch_norm_and_losses_that_mix_are_told_that_accumulation_changes_them():
    of = model(batch_norm=True, mixes=True)
    wish = goal(batch__micro_batch=4, batch__global_batch=16)
    notes = " ".join(planned(of=of, wish=wish).notes)
    assert "BatchNorm" in notes
    assert "ties samples together" in notes
    assert planned(of=of).notes == ()


def test_run_seconds_are_at_least_the_sum_of_what_a_run_does():
    plan = planned(of=model(weights=4, each=4, train=100, valid=10))
    whole = plan.train.epochs * 100 / plan.batch.global_batch
    assert plan.predicted.run_seconds.expected > 1 + whole * plan.predicted.step_seconds.expected
    # Seeding and collating 8 samples, and the loop's own work.
    assert plan.predicted.step_seconds.expected > 8 * 20e-6 + 0.2e-3


def test_a_step_takes_no_longer_than_its_samples_do():
    """Of 65 samples by 64 an epoch's second step holds one; of 5 by 8 the only one holds five."""

    def told(count, total, **wish):
        wish |= {"batch__global_batch": total, "batch__micro_batch": total // 4}
        return planned(of=model(4096, train=count, valid=1), wish=goal(**wish)).predicted

    rare = {f"{section}__every_epochs": 2000 for section in ("evaluate", "checkpoint")}
    one, full = (told(count, 64, train__epochs=2000, **rare) for count in (65, 128))
    assert one.step_seconds == full.step_seconds
    assert one.run_seconds.expected < 0.6 * full.run_seconds.expected
    five, eight = (told(count, 8).step_seconds.expected for count in (5, 8))
    assert 0.6 < five / eight < 0.7


def test_what_does_not_fit_in_the_one_precision_that_was_traced_is_an_error_with_words():
    """Leaving the precision out would need traces in fp32, which nobody made: no remedy."""
    of = model(each=900 * MIB, dtypes=("bf16",))
    with pytest.raises(DoesNotFitError) as refused:
        planned(machine(device(free=0.5 * GIB)), of, goal(precision__dtype="bf16"))
    assert "precision.dtype" not in refused.value.hint
