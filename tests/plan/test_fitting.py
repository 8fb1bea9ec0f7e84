"""Where there is far more room than a step takes, how its tensors lie is not asked; nothing else
is chosen for that."""

import pytest

from autotrain.errors import DoesNotFitError
from autotrain.plan import cuda, fitting, host
from autotrain.plan.planner import _fitted

from .profiles import GIB, MIB, device, goal, machine, model
from .test_monotone import MODELS, chain

TAPES = [name for name in MODELS if "tape" in name]


def sized(kind, of, free):
    own = device(kind, free, native_dtypes=("fp32",))
    return _fitted(machine(own, device(), ram=4 * free), own, of, goal())


def cut(kind, of, free):
    try:
        sizing = sized(kind, of, free)
    except DoesNotFitError:
        return None
    return sizing.count("batch.micro_batch"), sizing.count("batch.accum_steps"), sizing.buckets()


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
@pytest.mark.parametrize("name", TAPES)
def test_as_much_fits_as_where_every_step_is_played(name, kind, monkeypatch):
    """From where nothing fits to where everything does."""
    sizes = [round(GIB / 2 * 1.15**step) for step in range(36)]
    known = [cut(kind, MODELS[name], free) for free in sizes]
    monkeypatch.setattr(fitting, "_roomy", lambda *asked: False)
    assert known == [cut(kind, MODELS[name], free) for free in sizes]
    assert len(set(known)) > 1


@pytest.mark.parametrize("micro", [2, 3, 8, 40, 500])
@pytest.mark.parametrize("name", ["cuda", "cpu"])
def test_what_a_step_is_said_to_take_is_never_more_than_the_most_it_could(name, micro):
    """Also where small steps were traced, which are rounded up to whole segments."""
    of = chain()
    sizing = sized(name, of, 64 * GIB)
    setup = sizing.setup(micro, 1)
    most = sizing.tensors(setup).high
    if name == "cuda":
        assert sizing.reserved(setup).high <= cuda.at_most(most)
    else:
        assert sizing.device_peak(setup, 0).high <= host.at_most(
            of, setup, most, sizing.saved_bytes(), sizing.beside_bytes(0)
        )


def test_few_steps_are_played_where_all_lengths_fit_easily():
    of = MODELS["lengths and a tape"]
    cuda._played.cache_clear()
    sizing = sized("cuda", of, 64 * GIB)
    assert len(sizing.buckets()) > 3
    few = cuda._played.cache_info().misses
    cuda._played.cache_clear()
    tight = sized("cuda", of, 6 * GIB)
    assert len(tight.buckets()) > 3
    assert few <= 4 < cuda._played.cache_info().misses


def test_of_several_batches_the_one_that_takes_most_is_planned_for():
    sizing = sized("cuda", model(400 * MIB, 30 * MIB), 64 * GIB)
    few, many = sizing.setup(2, 1), sizing.setup(9, 1)
    assert fitting.worst(sizing, [few, many]) == fitting.worst(sizing, [many, few]) == many
