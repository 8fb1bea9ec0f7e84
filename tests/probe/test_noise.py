"""How far gradients scatter: real gradients of a problem whose noise scale can be computed."""

import pytest
import torch
from test_range_test import LINE
from test_trial import plan

from autotrain.plan import noise
from autotrain.probe.child import Request
from autotrain.probe.noise import LEAST_STEPS, NoiseRequest, measured

STILL = 1e-12


@pytest.fixture(autouse=True)
def as_before():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


@pytest.fixture
def ask(tmp_path):
    """A request on a task's source: `ask(source, micro=4, **fields)`."""

    def made(source=LINE, **fields):
        path = tmp_path / "task.py"
        path.write_text(source)
        of = plan(
            optimizer={"name": "sgd", "weight_decay": 0.0, "clip_norm": 1e-9},
            data={"valid_share": None},
            precision={"dtype": fields.pop("dtype", "fp32")},
        )
        about = {"micro_batch": 4, "parts": 8, "steps": 64, "rate": STILL, "seconds": 60.0}
        take = Request(plan=of, task_file=str(path), data=None)
        return NoiseRequest(take=take, **{**about, **fields})

    return made


NOISY = LINE.replace(
    "Y = X @ torch.ones(6, 1)",
    "Y = X @ torch.ones(6, 1)\n"
    "Y += 5 * torch.randn(256, 1, generator=torch.Generator().manual_seed(4))",
)


def exact(request):
    """tr(Sigma) / |G|^2 over all samples at the first weights, one gradient a sample."""
    space = {}
    with open(request.take.task_file) as file:
        exec(compile(file.read(), "task.py", "exec"), space)
    torch.manual_seed(request.take.plan.run.seed)
    weight = space["task"](None).model().weight.detach().T
    x, y = space["X"], space["Y"]
    gradients = 2 * (x @ weight - y) * x
    mean = gradients.mean(0)
    return float((gradients - mean).square().sum(1).mean()), float(mean.square().sum())


@pytest.mark.parametrize("micro", [1, 4, 64])
def test_the_scale_of_a_linear_regression_is_the_one_computed_from_all_its_gradients(ask, micro):
    """Also where a micro-batch is a quarter of the data, drawn without replacement."""
    request = ask(NOISY, micro_batch=micro, steps=128)
    answer = measured(request)
    assert (answer.outcome, answer.message) == ("ok", "")
    assert (answer.count, len(answer.windows)) == (256, 128)
    trace, square = exact(request)
    pairs = [noise.estimates(answer, window) for window in answer.windows]
    assert sum(t for _, t in pairs) / len(pairs) == pytest.approx(trace, rel=0.1)
    assert sum(s for s, _ in pairs) / len(pairs) == pytest.approx(square, rel=0.25)
    found = noise.scale(answer, answer.windows)
    assert found.low < trace / square < found.high


def test_while_it_trains_the_scale_grows(ask):
    found = noise.scales(measured(ask(rate=0.01)))
    assert found.later.expected > found.start.expected


def test_the_steps_are_those_of_training(ask):
    """The mean gradient is what the optimizer gets: without clipping's tiny norm it converges."""
    request = ask(rate=0.02)
    free = request.take.plan.optimizer.model_copy(update={"clip_norm": None})
    of = request.take.plan.model_copy(update={"optimizer": free})
    request = request.model_copy(
        update={"take": request.take.model_copy(update={"plan": of}), "steps": 60}
    )
    answer = measured(request)
    assert answer.windows[-1].square < 1e-2 * answer.windows[0].square


def test_when_the_time_is_over_it_ends_with_what_it_has(ask):
    assert len(measured(ask(seconds=0.0)).windows) == LEAST_STEPS


def test_a_loss_that_ties_samples_together_is_refused(ask):
    source = (
        LINE.replace("Task.regression(", "Task(loss=mixed, ")
        + """
def mixed(model, batch):
    return Loss(total=model(batch[0]).square().mean(), weight=1, mixes=True)
"""
    )
    answer = measured(ask(source))
    assert answer.outcome == "failed"
    assert "mixes=True" in answer.message
    assert "--measure-noise" in answer.hint


@pytest.mark.parametrize(
    ("old", "new", "outcome", "says"),
    [
        ("return X[index], Y", "return X[index] / 0, Y", "not_finite", "the loss is nan at step 1"),
        ("return X[index], Y", "return X[index], Z", "failed", "task.py:"),
        ("Linear(6", "Linear(7", "failed", "the loss: RuntimeError"),
    ],
)
def test_what_goes_wrong_is_named(ask, old, new, outcome, says):
    answer = measured(ask(LINE.replace(old, new)))
    assert answer.outcome == outcome
    assert says in answer.message


def test_a_parameter_without_gradient_and_a_sparse_one_count_as_they_are(ask):
    source = (
        LINE.replace("nn.Linear(6, 1, bias=False)", "Odd()")
        + """
class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 6, sparse=True)
        self.unused = nn.Linear(3, 3)
    def forward(self, x):
        return (self.table(torch.zeros(len(x), dtype=torch.long)) * x).sum(1, keepdim=True)
"""
    )
    answer = measured(ask(source, steps=LEAST_STEPS))
    assert (answer.outcome, answer.message) == ("ok", "")
    assert all(window.square > 0 for window in answer.windows)
