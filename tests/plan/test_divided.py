"""A model that does not fit one device is divided among processes, where that makes it fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.errors import DoesNotFitError, UsageError
from autotrain.plan import divided, memory

from .profiles import GIB, MIB, between, device, goal, machine, model, planned, reason

# 4 GiB of weights: 16 GiB with gradients and AdamW's states.
LARGE = model(
    weights=4 * GIB, each=64 * MIB, tensors=100, blocks=16,
    block_bytes=200 * MIB, outside_bytes=800 * MIB,
)  # fmt: skip
TWO = {"batch__world_size": 2, "batch__global_batch": 4}


def gpu(gib):
    return machine(device("cuda", free=gib * GIB), device())


def test_it_is_divided_where_it_does_not_fit_whole():
    plan = planned(gpu(18), LARGE, goal(**TWO))
    assert plan.parallel.strategy == "shard"
    assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes
    why = reason(plan, "parallel.strategy")
    assert (why.kind, why.limited_by) == ("rule", "memory.budget_bytes")
    assert "divided by 2" in why.formula


def test_what_fits_whole_stays_whole():
    plan = planned(gpu(40), LARGE, goal(**TWO))
    assert plan.parallel.strategy == "ddp"
    assert "fewest exchanges" in reason(plan, "parallel.strategy").formula


def test_one_process_has_nobody_to_share_with():
    with pytest.raises(DoesNotFitError):
        planned(gpu(18), LARGE, goal(batch__global_batch=4))
    assert reason(planned(), "parallel.strategy").formula == "one process trains"


def test_activations_are_computed_again_first_as_that_exchanges_nothing():
    form = {"activation_checkpointing": True}
    lean = [t.model_copy(update={
        "form": t.form.model_copy(update=form), "peak_bytes": 2 * 40 * MIB + 1,
        "accumulate_peak_bytes": 2 * 40 * MIB + 1,
    }) for t in model().traces]  # fmt: skip
    wide = model(weights=40 * MIB, each=2 * GIB, micros=(1, 2), blocks=4)
    both = wide.model_copy(update={"traces": (*wide.traces, *lean)})
    plan = planned(gpu(2), both, goal(**TWO))
    assert plan.model.activation_checkpointing
    assert plan.parallel.strategy == "ddp"


def test_what_you_say_of_it_holds():
    plan = planned(gpu(60), LARGE, goal(**TWO, parallel__strategy="shard"))
    assert plan.parallel.strategy == "shard"
    assert reason(plan, "parallel.strategy").formula.startswith("you set shard; autotrain divides")
    with pytest.raises(DoesNotFitError):
        planned(gpu(18), LARGE, goal(**TWO, parallel__strategy="ddp"))


def test_gradients_are_divided_after_each_micro_batch_where_all_of_them_would_not_fit():
    """Four micro-batches in each of two processes."""
    wish = {**TWO, "batch__global_batch": 8, "batch__micro_batch": 1}
    assert planned(gpu(20), LARGE, goal(**wish)).parallel.reduce == "last"
    plan = planned(gpu(18), LARGE, goal(**wish))
    assert (plan.parallel.strategy, plan.parallel.reduce) == ("shard", "each")
    alone = planned(gpu(18), LARGE, goal(**TWO, batch__micro_batch=2))
    assert (alone.batch.accum_steps, alone.parallel.reduce) == (1, "last")


@pytest.mark.parametrize(
    "extra", [{"model__compile": True}, {"model__memory_format": "channels_last"}]
)
def test_what_cannot_be_divided_is_said(extra):
    with pytest.raises(UsageError, match="shard does not go with model"):
        planned(gpu(60), LARGE, goal(**TWO, parallel__strategy="shard", **extra))
    with pytest.raises(DoesNotFitError):
        planned(gpu(18), LARGE, goal(**TWO, **extra))


def test_each_process_keeps_its_part():
    setup = memory.Setup(1, 1, "fp32", "adamw", "fused", None, world=4, shard="last")
    held = divided.held(LARGE, setup)
    assert held["weights"] == GIB
    assert held["optimizer"] == pytest.approx(2 * GIB, rel=1e-6)
    assert divided.gradients(LARGE, setup) == GIB
    assert divided.gradients(LARGE, setup._replace(accum_steps=2)) == 4 * GIB
    assert divided.gradients(LARGE, setup._replace(accum_steps=2, shard="each")) == GIB


def test_an_evaluation_has_whole_weights():
    setup = memory.Setup(1, 1, "fp32", "sgd", "fused", None, world=1000, shard="each")
    assert divided.tensor_peak_bytes(LARGE, setup) > LARGE.parameter_bytes


def test_of_an_old_profile_all_is_taken_to_be_whole_at_once():
    old = LARGE.model_copy(update={"block_bytes": None, "outside_bytes": None})
    setup = memory.Setup(1, 1, "fp32", "adamw", "fused", None, world=2, shard="each")
    assert divided.gathered(old, setup) == 2 * LARGE.parameter_bytes


def test_a_trial_of_the_whole_model_says_nothing_of_a_divided_one():
    from autotrain.schema import Trial

    tried = Trial(
        outcome="ok", device="cuda", threads=4, micro_batch=1, accum_steps=2, dtype="bf16",
        optimizer="adamw", implementation="fused", device_peak_bytes=30 * GIB,
    )  # fmt: skip
    wish = goal(**TWO, batch__micro_batch=1)
    known = LARGE.model_copy(update={"trials": (tried,)})
    one, other = (planned(gpu(18), each, wish) for each in (LARGE, known))
    assert one.predicted == other.predicted


@settings(max_examples=60, deadline=None)
@given(between(1, 1 << 20), st.integers(1, 6), st.sampled_from(["last", "each"]), st.booleans())
def test_more_processes_never_take_more_in_each(weights, power, reduce, ema):
    net = model(weights=4 * weights, each=MIB, block_bytes=weights, outside_bytes=weights)
    setup = memory.Setup(
        4, 2, "fp32", "adamw", "foreach", None, world=2**power, shard=reduce, ema=ema
    )
    more = setup._replace(world=2 * setup.world)
    peak = divided.tensor_peak_bytes
    assert peak(net, more) <= peak(net, setup)
    assert peak(net, setup._replace(shard="each")) <= peak(net, setup._replace(shard="last"))


def test_batch_norm_of_several_processes_is_in_the_notes():
    net = model(batch_norm=True)
    said = "running statistics are process 0's"
    assert any(said in note for note in planned(of=net, wish=goal(batch__world_size=2)).notes)
    assert not any(said in note for note in planned(of=net).notes)


def test_what_has_no_effect_is_in_the_notes():
    assert "parallel.strategy is set, and one process trains" in planned(
        wish=goal(parallel__strategy="shard")
    ).notes  # fmt: skip
