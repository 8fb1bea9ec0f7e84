"""From a step's tape to what a CUDA device reserves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import cuda, memory
from autotrain.plan.allocator import Allocator
from autotrain.plan.memory import Setup
from autotrain.plan.sequence import Scene, run_tape
from autotrain.probe.model import ModelTracer
from autotrain.schema import Prediction, StepTrace
from autotrain.task import Loss, Task
from tests.plan import profiles
from tests.plan.profiles import MIB, OPTIMIZERS

NOTHING = Prediction(low=0, expected=0, high=0)
# Two parameters, a batch, and a step with one activation (9) and one output (5) that the user
# keeps until the next forward pass has made its own.
TAPE = (
    30, 20,  # 0, 1: the model
    7,  # 2: the batch
    9, 5, -4, 20, 30,  # 3: activation, 4: output, 5 and 6: gradients
    9, 5, -5, -8, 20, -10, -6, -7,  # 7, 8; the older output dies; 9 is added to 5
    9, -11,  # 10
)  # fmt: skip
MARKS = (2, 3, 8, 16)


def trace(micro=4, tape=TAPE, marks=MARKS, scale=1):
    made = profiles.trace(micro, 50 * scale, 8 * scale, 50 * scale)
    grown = tuple(entry * scale if entry > 0 else entry for entry in tape)
    return StepTrace.model_validate(made.model_dump() | {"tape": grown, "marks": marks})


def grown(micro):
    """A trace whose parameters stay as they are and whose activations grow with its samples."""
    of_samples = {7, 9, 5}
    tape = tuple(
        entry * MIB * (micro if entry in of_samples else 1) if entry > 0 else entry
        for entry in TAPE
    )
    made = profiles.trace(micro, 50 * MIB, 0, 50 * MIB)
    peaks = {
        "batch_bytes": 7 * micro * MIB,
        # Activation, output and both gradients; then beside those the same, or the older output
        # and what replaces it; then what an evaluation makes.
        "peak_bytes": (50 + 7 * micro + max(14 * micro, 5 * micro + 50)) * MIB,
        "accumulate_peak_bytes": (50 + 7 * micro + 50 + max(19 * micro, 5 * micro + 20)) * MIB,
        "evaluate_peak_bytes": (50 + 7 * micro + 14 * micro) * MIB,
    }
    return StepTrace.model_validate(made.model_dump() | {"tape": tape, "marks": MARKS} | peaks)


def setup(name="sgd", implementation="fused", **more):
    fields = {"micro_batch": 4, "accum_steps": 1, "dtype": "fp32", "momentum": None}
    fields |= {"optimizer": name, "implementation": implementation, "decays": False}
    return Setup(**(fields | more))


def model(*traces, scale=MIB):
    held = 50 * scale
    return profiles.model(weights=held, each=8 * scale).model_copy(
        update={
            "traces": traces or (trace(scale=scale),),
            "trainable_sizes": (30 * scale, 20 * scale),
            "trainable_bytes": held,
            "parameter_bytes": held,
            "buffer_bytes": 0,
        }
    )


def story(*how, **scene):
    """The run's tape as (+n born with n bytes, -n died with n bytes), without gradients' norms."""
    plain = {"evaluates": False} | scene
    out, sizes = [], []
    for entry in run_tape(trace(), (30, 20), setup(*how), Scene(**plain)):
        size = entry if entry >= 0 else -sizes[-1 - entry]
        sizes += [entry] if entry >= 0 else []
        out += [size] if abs(size) != 4 else []
    return out


# --- the sequence ------------------------------------------------------------------------------


def test_a_run_is_the_model_and_steps_whose_batch_and_gradients_die():
    step = [7, 9, 5, -9, 20, 30, -7, -20, -30]
    # From the second step on, the output of the step before dies when the new one is there.
    again = [7, 9, 5, -5, -9, 20, 30, -7, -20, -30]
    assert story() == [30, 20, *step, *again, *again]


def test_states_are_born_in_the_first_step_and_adagrads_with_the_optimizer():
    first = [7, 9, 5, -9, 20, 30, -7, 30, 30, 20, 20, -20, -30]
    assert story("adam")[2 : 2 + len(first)] == first
    assert story("adagrad")[:4] == [30, 20, 30, 20]


def test_a_foreach_step_makes_whole_lists_and_drops_them():
    ends = [*[30, 30, 20, 20], 30, 20, -30, -20]
    assert story("adam", "foreach")[9:17] == ends
    assert story("adamw", "foreach") == story("adam", "foreach")


def test_a_for_loop_step_works_on_one_parameter_at_a_time():
    made = story("adam", "for-loop")[13:]
    count = memory.LOOP_TEMPORARIES["adam"]
    assert made[: 2 * count] == [30] * count + [-30] * count


def test_workspaces_are_born_once():
    assert story(workspaces=(11,)).count(11) == 1
    assert -11 not in story(workspaces=(11,))


def test_an_evaluation_leaves_nothing_behind():
    tape = run_tape(trace(), (30, 20), setup(), Scene())
    births = sum(entry >= 0 for entry in tape)
    deaths = sum(entry < 0 for entry in tape)
    without = run_tape(trace(), (30, 20), setup(), Scene(evaluates=False))
    assert len(tape) > len(without)
    assert births - deaths == sum(e >= 0 for e in without) - sum(e < 0 for e in without)


def test_a_later_micro_batch_stands_beside_the_gradients():
    def peak(accum):
        allocator = Allocator()
        made = trace(scale=MIB)
        allocator.run(run_tape(made, (30 * MIB, 20 * MIB), setup(accum_steps=accum), Scene()))
        return allocator.allocated_peak

    assert peak(1) == (50 + 7 + 5 + 50) * MIB
    # A block that is not worth splitting may be 1 MiB larger than was asked for.
    assert 0 <= peak(2) - (50 + 7 + 50 + 5 + 20) * MIB <= MIB
    assert peak(8) == peak(2)


def test_gradients_dropped_late_stand_beside_the_next_activations():
    late = story(late_zero=True)
    assert late[9:18] == [7, 9, 5, -5, -20, -30, -9, 20, 30]


@pytest.mark.parametrize("decays", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_and_temporaries_are_those_that_the_tensor_peak_counts(name, decays):
    """Two ways to the same figure: plan/memory.py counts, the sequence makes them."""
    chosen = setup(name, "foreach", decays=decays, momentum=0.9 if name == "sgd" else None)
    sizes = (30 * MIB, 20 * MIB)
    tape = run_tape(trace(scale=MIB), sizes, chosen, Scene(evaluates=False))
    now = most = 0
    births = [entry for entry in tape if entry >= 0]
    for entry in tape:
        now += entry if entry >= 0 else -births[-1 - entry]
        most = max(most, now)
    copies = memory.STATES[name] + (name == "sgd")
    temporaries = {
        "adamw": 1, "adam": 1, "nadam": 1 + decays, "radam": 1, "adamax": 1,
        "adadelta": 2 + decays, "rprop": 1, "rmsprop": 1 + decays, "adagrad": 2, "sgd": int(decays),
    }  # fmt: skip
    # Weights, gradients and the kept output are there too; without temporaries, the batch is.
    beside = 5 if temporaries[name] else 12
    assert most == (50 * (2 + copies + temporaries[name]) + beside) * MIB


# --- takes and needs ---------------------------------------------------------------------------


def test_what_is_taken_covers_the_tensors_and_what_is_needed():
    of, how = model(), setup("adam", "foreach")
    takes, needs = cuda.takes(of, how), cuda.needs(of, how)
    parts = cuda.parts(of, how)
    assert memory.tensor_peak_bytes(of, how) <= parts.allocated <= needs <= takes
    assert parts.allocated + parts.idle == takes


def test_fewer_bytes_do_where_holes_are_given_back():
    """Two activations in turn: the second finds the first one's segment too small."""
    grown = (30, 20, 7, 60, -4, 80, -5, 20, 30, 60, -8, 80, -9, -6, -7, 9, -10)
    of = model(trace(tape=grown, marks=(2, 3, 9, 15), scale=MIB))
    assert cuda.needs(of, setup()) <= cuda.takes(of, setup()) - 30 * MIB


def test_hopper_has_larger_workspaces():
    hopper = profiles.device("cuda", compute_capability="9.0")
    ampere = profiles.device("cuda", compute_capability="8.0")
    more = cuda.takes(model(), setup(), hopper) - cuda.takes(model(), setup(), ampere)
    assert more > 40 * MIB


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(OPTIMIZERS), st.integers(1, 3))
def test_more_samples_never_take_less(one, other, name, accum):
    of = model(*(grown(micro) for micro in (4, 8, 64)))
    less, more = sorted((one, other))
    how = setup(name, "foreach", accum_steps=accum)
    assert cuda.takes(of, how._replace(micro_batch=less)) <= cuda.takes(
        of, how._replace(micro_batch=more)
    )


def test_a_larger_size_that_packs_better_is_said_to_take_as_much():
    of = model(trace(4, scale=4 * MIB), trace(8, scale=3 * MIB))
    assert cuda.takes(of, setup(micro_batch=8)) == cuda.takes(of, setup(micro_batch=4))


@given(st.integers(9, 100_000), st.sampled_from(["fused", "foreach"]), st.integers(1, 2))
def test_beyond_the_largest_that_was_traced_it_takes_more_as_its_tensors_do(micro, how, accum):
    """Of the smaller one nothing is asked: rounded up to segments, it tells no slope."""
    of, alone = model(grown(2), grown(8)), model(grown(8))
    last, more = setup("adamw", how, micro_batch=8, accum_steps=accum), {"micro_batch": micro}
    ratio = memory.tensor_peak_bytes(of, last._replace(**more)) / memory.tensor_peak_bytes(of, last)
    found = cuda.takes(of, last._replace(**more))
    assert found == pytest.approx(max(ratio, 1.0) * cuda.takes(of, last))
    assert cuda.takes(alone, last) == cuda.takes(of, last)


def test_each_traced_size_is_simulated_once_however_often_it_is_asked_for():
    """What a plan costs: 30 ms a simulation, so there must be few."""
    of = model(*(trace(micro, scale=micro * MIB) for micro in (2, 8)))
    cuda._played.cache_clear()
    for micro in range(1, 200):
        cuda.reserved(of, setup(micro_batch=micro, accum_steps=micro), NOTHING)
    assert cuda._played.cache_info().misses == 2 * 2


def test_without_a_tape_it_follows_from_the_tensors():
    tensors = Prediction(low=90 * MIB, expected=100 * MIB, high=110 * MIB)
    of = profiles.model(weights=MIB)
    assert cuda.takes(of, setup()) is None
    assert cuda.parts(of, setup()) is None
    assert cuda.reserved(of, setup(), tensors).expected == 1.06 * 100 * MIB + 22 * MIB


def test_less_is_promised_where_nobody_has_published_figures():
    def width(kind):
        found = cuda.reserved(model(), setup(), NOTHING, profiles.device(kind))
        return (found.high - found.low) / found.expected

    assert width("cuda") == width("cpu") < width("mps") == width("rocm")


def test_a_device_shows_its_context_too():
    reserved = Prediction(low=100, expected=100, high=100)
    for capability in (None, "8.0", "8.6", "9.0", "12.0"):
        device = profiles.device("cuda", compute_capability=capability)
        shown = cuda.device_peak(reserved, device)
        assert 300 * MIB < shown.expected < 700 * MIB
        assert shown.low < shown.expected < shown.high


# --- a real model ------------------------------------------------------------------------------


class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.zeros(3, 64, 64), torch.tensor(index % 4)


def small_cnn():
    conv = torch.nn.Conv2d
    layers = [conv(3, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(inplace=True)]
    layers += [conv(32, 64, 3, padding=1), torch.nn.BatchNorm2d(64), torch.nn.ReLU(inplace=True)]
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 4)]
    return torch.nn.Sequential(*layers)


def test_a_small_cnn_from_trace_to_reserved_bytes(tmp_path):
    def loss(net, batch):
        total = torch.nn.functional.cross_entropy(net(batch[0]), batch[1], reduction="sum")
        return Loss(total=total, weight=len(batch[1]))

    task = Task(model=small_cnn, train=Pictures(), valid=Pictures(), loss=loss)
    device = profiles.device("cuda", compute_capability="8.6")
    tracer = ModelTracer.open(task, tmp_path / "task.py", device)
    for micro in (8, 64):
        tracer.trace(micro)
    of, how = tracer.profile(), setup("adamw", "fused", micro_batch=64)
    takes, parts = cuda.takes(of, how, device), cuda.parts(of, how, device)
    # At 64: 96 channels of 64 x 64 three times (convolution, norm, and its gradient), 300 MiB.
    assert 300 * MIB < takes < 700 * MIB
    assert memory.tensor_peak_bytes(of, how) <= parts.allocated <= parts.needs <= takes
    assert takes < 1.5 * parts.allocated
