"""Whether freed memory is kept: by the model, the plan's own checkpointing, and the user."""

import pytest

from autotrain.plan import host, memory
from autotrain.schema import ModelSection

from .profiles import device, goal, machine, model, planned, reason

KEY = "device.keep_freed"
CPU = machine(device("cpu", free=8 << 30))


def again(form=ModelSection()):  # noqa: B008  # frozen
    plain = model()
    changed = {"recomputes": True, "form": form}
    return plain.model_copy(
        update={"traces": tuple(t.model_copy(update=changed) for t in plain.traces)}
    )


def test_where_activations_are_computed_again_it_goes_back():
    made = planned(CPU, again())
    assert made.device.keep_freed is False
    assert "computes activations again" in reason(made, KEY).formula
    assert not made.model.keeps_freed(made.device.keep_freed)


def test_else_it_is_kept():
    made = planned(CPU, model())
    assert made.device.keep_freed is None
    assert made.model.keeps_freed(made.device.keep_freed)


def test_what_the_plan_itself_computes_again_says_nothing_of_the_model():
    assert not again(ModelSection(activation_checkpointing=True)).recomputes


def test_the_plans_own_checkpointing_gives_back_too_unless_you_say_otherwise():
    form = ModelSection(activation_checkpointing=True)
    assert [form.keeps_freed(asked) for asked in (None, True, False)] == [False, True, False]
    assert [ModelSection().keeps_freed(asked) for asked in (None, True, False)] == [
        True, True, False
    ]  # fmt: skip


def test_you_may_keep_it_and_on_a_gpu_nobody_asks():
    assert planned(CPU, again(), goal(device__keep_freed=True)).device.keep_freed is True
    gpu = machine(device("cuda", free=8 << 30, native_dtypes=("fp32",)))
    assert planned(gpu, again()).device.keep_freed is None


@pytest.mark.parametrize("size", [64, 8])
def test_one_tensor_that_is_the_largest_by_far_may_not_fit_its_own_hole(size):
    """From 32 MiB on; two that are as large fill each other's."""
    mib = 1 << 20
    setup = memory.Setup(1, 1, "fp32", "sgd", "fused", None)

    def heaped(tape, keep=None):
        trace = (
            model()
            .traces[0]
            .model_copy(
                update={"tape": (mib, *tape), "marks": (1, 1, len(tape) + 1, len(tape) + 1)}
            )
        )
        return host.heap_bytes(trace, (mib,), setup._replace(keep_freed=keep))

    alone = (size * mib, -2, 4 * mib, size * mib, -3, -4)
    beside = (size * mib, size * mib, -2, -3)
    assert heaped(alone).sole == (size * mib if size >= 32 else 0)
    assert heaped(beside).sole == heaped(alone, keep=False).sole == 0
