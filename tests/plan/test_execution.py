"""How the model is run, as a plan settles it: by the user, or because nothing else fits."""

import pytest

from autotrain.errors import DoesNotFitError
from autotrain.schema import ModelSection

from .profiles import GIB, MIB, device, goal, machine, model, planned, reason

AGAIN = ModelSection(activation_checkpointing=True)
KEY = "model.activation_checkpointing"


def both(weights=40 * MIB, each=900 * MIB, less=0.2, blocks=12):
    """A model traced as it is, and with activations computed again, which saves most of them."""
    plain, again = model(weights, each), model(weights, less * each)
    more = tuple(
        t.model_copy(update={"form": AGAIN, "matmul_flops": 1.25 * t.matmul_flops})
        for t in again.traces
    )
    return plain.model_copy(update={"blocks": blocks, "traces": (*plain.traces, *more)})


SMALL = machine(device("cuda", free=2 * GIB, native_dtypes=("fp32",)))
LARGE = machine(device("cuda", free=80 * GIB, native_dtypes=("fp32",)))


def test_where_a_sample_fits_activations_are_kept():
    assert planned(LARGE, both()).model == ModelSection()


def test_where_none_fits_they_are_computed_again_and_the_reason_says_what_for():
    with pytest.raises(DoesNotFitError):
        planned(SMALL, both(blocks=0).model_copy(update={"traces": model(each=900 * MIB).traces}))
    plan = planned(SMALL, both())
    assert plan.model == AGAIN
    assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes
    why = reason(plan, KEY)
    assert why.limited_by == "memory.budget_bytes"
    assert "25% more to compute" in why.formula
    assert "12 blocks" in why.formula


def test_where_the_users_micro_batch_does_not_fit_they_are_computed_again():
    # 4 samples need 3.6 GiB of activations: more than the budget, less than the device has.
    hardware = machine(device("cuda", free=4 * GIB, total_bytes=6 * GIB, native_dtypes=("fp32",)))
    wish = goal(batch__micro_batch=4)
    plan = planned(hardware, both(), wish)
    assert plan.batch.micro_batch == 4
    assert plan.model == AGAIN
    assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes
    assert not any("more than the budget" in note for note in plan.notes)


def test_a_wish_is_kept_and_refused_where_it_does_not_fit():
    assert planned(LARGE, both(), goal(**{"model__activation_checkpointing": True})).model == AGAIN
    with pytest.raises(DoesNotFitError) as caught:
        planned(SMALL, both(), goal(**{"model__activation_checkpointing": False}))
    assert f"--set {KEY}=auto" in caught.value.hint


def test_where_it_does_not_help_the_refusal_is_of_the_model_as_it_is():
    with pytest.raises(DoesNotFitError, match=r"one sample needs") as caught:
        planned(SMALL, both(less=0.999))
    assert KEY not in caught.value.hint


def test_what_has_no_effect_is_noted():
    wish = goal(model__memory_format="channels_last", model__activation_checkpointing=True)
    notes = planned(LARGE, model(), wish).notes
    assert any(note.startswith("model.memory_format is set, and") for note in notes)
    assert any(note.startswith(f"{KEY} is set, and") for note in notes)
    known = both().model_copy(update={"convolutions": 3})
    assert not any("is set, and" in note for note in planned(LARGE, known, wish).notes)


def test_traces_of_another_form_stay_out():
    """Without blocks computed again the same predictions come out, whatever else was traced."""
    alone = model(each=900 * MIB)
    assert planned(LARGE, both()).predicted == planned(LARGE, alone).predicted


def test_that_nothing_is_compiled_is_said_only_where_something_is_computed_again():
    wish = goal(model__compile=True, model__activation_checkpointing=True)
    said = "model.compile is set, and what is computed again is not compiled"
    assert said in planned(LARGE, both(), wish).notes
    assert said not in planned(LARGE, model(blocks=0), wish).notes
