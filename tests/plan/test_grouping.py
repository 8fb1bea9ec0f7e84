"""What is trained, averaged and decays: the choice, its reason, and the bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autotrain import optimizer
from autotrain.plan import correction, grouping, memory
from autotrain.plan.ledger import Ledger
from autotrain.plan.sequence import Scene, run_tape
from autotrain.probe.trace.counter import Counter
from autotrain.probe.trace.sizes import sizes as sizes_of
from autotrain.schema import OptimizerSection, Trial

from .profiles import MIB, OPTIMIZERS, device, goal, machine, model, planned, reason, recipe, trace

MATRICES_FIRST = {
    "trainable_sizes": (4 * MIB, 1024, 8 * MIB, 2048),
    "trainable_dims": (2, 1, 4, 1),
    "trainable_depths": (1, 1, 0, 0),
}


def of(**more):
    total = sum(MATRICES_FIRST["trainable_sizes"])
    return model(weights=total, **(MATRICES_FIRST | {"tensors": 4} | more))


# --- what is chosen ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "decays", "said"),
    [
        (goal(), "matrices", "biases and norms' gains"),
        (goal(optimizer__weight_decay=0.1), "matrices", "biases and norms' gains"),
        (goal(optimizer__weight_decay=0.0), "all", "nothing decays"),
        (goal(optimizer__name="adam"), "all", "nothing decays"),
        (goal(optimizer__name="rprop", optimizer__weight_decay=0.1), "all", "nothing decays"),
        (goal(recipe(optimizer__weight_decay=0.1)), "all", "was found where all decay"),
        (goal(recipe(optimizer__decays="matrices")), "matrices", "the recipe sets matrices"),
        (goal(optimizer__decays="all"), "all", "autotrain's own rule gives matrices"),
    ],
)
def test_what_decays_follows_from_where_the_decay_was_found(wish, decays, said):
    plan = planned(wish=wish)
    assert plan.optimizer.decays == decays
    assert said in reason(plan, "optimizer.decays").formula


def test_nothing_is_averaged_frozen_or_slowed_unless_someone_says_so():
    plan = planned()
    assert (plan.train.ema_decay, plan.train.freeze, plan.optimizer.layer_decay) == (None,) * 3
    wish = goal(train__ema_decay=0.99, train__freeze=("a.*",), optimizer__layer_decay=0.8)
    plan = planned(wish=wish)
    assert (plan.train.ema_decay, plan.train.freeze) == (0.99, ("a.*",))
    assert plan.optimizer.layer_decay == 0.8
    assert reason(plan, "train.ema_decay").kind == "user"


def test_how_much_is_trained_is_said():
    half = of().model_copy(update={"parameter_bytes": 30 * MIB})
    said = reason(planned(of=half), "train.freeze").formula
    assert "12 MiB of 30 MiB" in said
    assert "frozen" in said


# --- its bytes ---------------------------------------------------------------------------------


def test_an_average_takes_what_is_trained_once_more_in_memory_and_a_model_on_disk():
    still = of(statistics_bytes=512, buffer_bytes=1024).model_copy(
        update={"parameter_bytes": 20 * MIB}
    )
    without, averaged = planned(of=still), planned(of=still, wish=goal(train__ema_decay=0.9))
    more = still.trainable_bytes + 512
    peaks = [p.predicted.tensor_peak_bytes.expected for p in (without, averaged)]
    assert peaks[1] - peaks[0] == more
    sizes = [p.predicted.checkpoint_bytes.expected for p in (without, averaged)]
    assert sizes[1] - sizes[0] == pytest.approx(20 * MIB + 1024, rel=0.01)
    assert "averaged weights 12 MiB" in reason(averaged, "predicted.tensor_peak_bytes").formula
    steps = [p.predicted.step_seconds.expected for p in (without, averaged)]
    assert steps[1] > steps[0]


def tapes_peak(sizes, setup):
    """The most bytes alive in a run's tape."""
    tape = run_tape(trace(4, 0, 0, 0), sizes, setup, Scene(evaluates=False))
    now = most = 0
    births = [entry for entry in tape if entry >= 0]
    for entry in tape:
        now += entry if entry >= 0 else -births[-1 - entry]
        most = max(most, now)
    return most


def setup(name, how, **more):
    momentum = 0.9 if name == "sgd" else None
    return memory.Setup(4, 1, "fp32", name, how, momentum, **more)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("how", ["foreach", "for-loop"])
def test_groups_are_updated_one_after_another(name, how):
    """Temporaries are those of the larger group; two ways to the same figure where both count."""
    sizes, groups = (30 * MIB, 20 * MIB), ((1, True), (1, False))
    of_all = model(weights=50 * MIB, trainable_sizes=sizes, largest_parameter_bytes=sizes[0])
    made = memory.optimizer_step_bytes(name, how, of_all, groups=groups)
    alone = model(weights=30 * MIB, trainable_sizes=(30 * MIB,), largest_parameter_bytes=sizes[0])
    assert made == memory.optimizer_step_bytes(name, how, alone)
    if how == "foreach" and name != "rprop":  # what a tape does not tell of Rprop: its mask
        grouped, whole = (
            tapes_peak(sizes, setup(name, how, groups=g)) for g in (groups, ((2, True),))
        )
        states = memory.optimizer_state_bytes(name, 50 * MIB, 0, setup(name, how).momentum)
        assert grouped <= whole
        assert grouped == pytest.approx(states + made, abs=64)


def test_the_averages_are_born_once_and_stay():
    sizes = (3000, 2000)
    plain, averaged = (
        run_tape(trace(4, 0, 0, 0), sizes, setup("sgd", "fused", ema=ema), Scene())
        for ema in (False, True)
    )
    born = [[entry for entry in tape if entry in sizes] for tape in (plain, averaged)]
    assert born[1] == [*sizes, *born[0]]


def test_a_plan_counts_its_groups_in_the_optimizers_order():
    """Kernels of 12 MiB decay together, whatever stands between them in the model."""
    wish = goal(optimizer__implementation="foreach", batch__micro_batch=1, batch__accum_steps=1)
    whole, grouped = (
        planned(of=of(each=1), wish=wish.model_copy(update={"user": wish.user | more}))
        for more in ({"optimizer.decays": "all"}, {"optimizer.decays": "matrices"})
    )
    peaks = [p.predicted.tensor_peak_bytes.expected for p in (whole, grouped)]
    assert peaks[0] - peaks[1] == 1024 + 2048


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.bottom, self.norm = nn.Linear(40, 300), nn.LayerNorm(300)
        self.middle, self.scale = nn.Linear(300, 200), nn.Parameter(torch.ones(()))
        self.head = nn.Linear(200, 5, bias=False)


@pytest.mark.parametrize("depth", [None, 0.5])
@pytest.mark.parametrize("decays", ["all", "matrices"])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_the_plan_knows_the_optimizers_groups_and_their_order(depth, decays, decay):
    net = Net()
    section = OptimizerSection(
        name="adamw", lr=1e-3, weight_decay=decay, implementation="foreach",
        decays=decays, layer_decay=depth,
    )  # fmt: skip
    made = optimizer.build(section, net)
    ledger = Ledger(goal(), 10, "cpu")
    ledger.values["optimizer"] = section.model_dump()
    known = grouping.in_order(ledger, model(**sizes_of(net)))
    assert known.trainable_sizes == tuple(p.nbytes for p in optimizer.grouped(made))
    groups = [(len(g["params"]), bool(g["weight_decay"])) for g in made.param_groups]
    assert list(grouping.groups(ledger, known)) == (groups if len(groups) > 1 else [])
    assert grouping.in_order(ledger, known) == known


@pytest.mark.parametrize("how", ["foreach", "for-loop"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_grouped_step_makes_no_more_for_a_moment_than_is_said(name, how):
    net = Net()
    section = OptimizerSection(
        name=name, lr=1e-3, weight_decay=0.01, implementation=how, momentum=0.9,
        decays="matrices", layer_decay=0.5,
    )  # fmt: skip
    made = optimizer.build(section, net)
    for _ in range(2):
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        made.step()
    states = [t for s in made.state.values() for t in s.values() if torch.is_tensor(t)]
    counter = Counter()
    counter.hold([*net.parameters(), *(p.grad for p in net.parameters()), *states])
    counter.restart()
    before = counter.now
    with counter:
        made.step()
    ledger = Ledger(goal(), 10, "cpu")
    ledger.values["optimizer"] = section.model_dump()
    known = grouping.in_order(ledger, model(**sizes_of(net)))
    said = memory.optimizer_step_bytes(name, how, known, groups=grouping.groups(ledger, known))
    assert counter.peak - before <= said + 256
    assert name == "rprop" or counter.peak - before >= 0.9 * said - 256


@given(st.booleans(), st.sampled_from([None, 0.9]), st.sampled_from(["cpu", "cuda"]))
def test_an_average_never_lets_more_fit(matrices, depth, kind):
    wish = {
        "optimizer__decays": "matrices" if matrices else "all", "optimizer__layer_decay": depth,
    }  # fmt: skip
    on = machine(device(kind))
    plain, averaged = (
        planned(on, of(), goal(**wish, **more)) for more in ({}, {"train__ema_decay": 0.99})
    )
    assert averaged.batch.micro_batch <= plain.batch.micro_batch
    high = averaged.predicted.device_peak_bytes.high
    assert plain.predicted.device_peak_bytes.high <= high <= averaged.memory.budget_bytes


def test_a_trial_without_an_average_says_nothing_of_a_step_with_one():
    held = {
        "device": "cpu", "threads": 4, "micro_batch": 4, "accum_steps": 1, "dtype": "fp32",
        "optimizer": "adamw", "implementation": "fused", "outcome": "ok",
    }  # fmt: skip
    for ema in (False, True):
        trial = Trial.model_validate(held | {"ema": ema})
        found = [
            bool(correction.relevant([trial], device(), setup("adamw", "fused", ema=other)))
            for other in (False, True)
        ]
        assert found == [not ema, ema]
