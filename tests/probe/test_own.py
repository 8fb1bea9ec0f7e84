"""A traced step's own operators, timed one by one."""

import time

import pytest
import torch

from autotrain.probe import own
from autotrain.probe.model import ModelTracer
from autotrain.probe.trace.examples import Example, Examples, Hollow
from autotrain.probe.zoo import Pool
from autotrain.schema import Work
from autotrain.task import Task

ADD = torch.ops.aten.add.Tensor


class Born:
    def __init__(self, number):
        self.number = number


def collected(calls):
    """Examples of calls, each a list of tensors given to one operator of one work."""
    examples, births = Examples(), {}
    for tensors in calls:
        for tensor in tensors:
            births.setdefault(tensor.untyped_storage()._cdata, Born(len(births)))
        examples.add(ADD, tuple(tensors), {}, Work("elementwise", "fp32", 1, 0.0, 64.0), births)
    return examples.all()


def test_equal_calls_are_one_example_that_knows_what_came_back():
    weight = torch.ones(4)
    inputs = [torch.ones(4) for _ in range(6)]
    (example,) = collected([weight, each] for each in inputs)
    assert example.calls == 6
    assert [len(example.others[place]) for place in (0, 1)] == [1, 6]
    assert all(isinstance(leaf, Hollow) for leaf in example.leaves[:2])


def test_what_came_back_in_every_call_is_one_tensor_in_a_burst():
    weight, inputs = torch.ones(4), [torch.ones(4) for _ in range(8)]
    (example,) = collected([weight, each] for each in inputs)
    given = own._given(example, 8, Pool())
    places = [{args[i].data_ptr() for args, _ in given} for i in (0, 1)]
    assert [len(found) for found in places] == [1, 8]


def test_the_costliest_come_first_and_what_cannot_matter_does_not_come():
    def example(size):
        work = Work("elementwise", "fp32", 1, 0.0, float(size))
        leaf = Hollow((size,), (1,), torch.float32)
        _, tree = torch.utils._pytree.tree_flatten(((0,), {}))
        return Example(torch.ops.aten.relu.default, (leaf,), tree, work)

    small, large, none = example(8), example(64), example(16)
    priced = {small.work: 1.0, large.work: 5.0, none.work: 1e-5}
    timed = own.measure([small, none, large], 1, 5.0, priced)
    assert [timing.bytes for timing in timed] == [64.0, 8.0]
    assert all(timing.seconds > 0 and timing.threads == 1 for timing in timed)
    begun = time.perf_counter()
    assert len(own.measure([small, large], 1, 0.0, priced)) <= 1
    assert time.perf_counter() - begun < 2


def test_an_operator_that_fails_by_itself_is_left_to_the_table():
    work = Work("gather", "fp32", 1, 0.0, 64.0)
    leaf = Hollow((4,), (1,), torch.float32)
    _, tree = torch.utils._pytree.tree_flatten(((0, 0), {}))
    wrong = Example(torch.ops.aten.mm.default, (leaf, leaf), tree, work)
    assert own.measure([wrong], 1, 1.0, {work: 1.0}) == ()


def test_two_operators_of_equal_work_give_it_their_mean():
    work = Work("elementwise", "fp32", 1, 0.0, 4e6)
    leaf = Hollow((500_000,), (1,), torch.float32)
    _, tree = torch.utils._pytree.tree_flatten(((0,), {}))
    cheap = Example(torch.ops.aten.alias.default, (leaf,), tree, work, calls=3)
    dear = Example(torch.ops.aten.erfinv.default, (leaf,), tree, work, calls=1)
    alone = own.measure([dear], 1, 5.0, {work: 1.0})[0].seconds
    (both,) = own.measure([cheap, dear], 1, 5.0, {work: 1.0})
    assert 0.1 * alone < both.seconds < 0.5 * alone


@pytest.fixture(scope="module")
def tracer(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "task.py"
    path.write_text("")
    data = torch.utils.data.TensorDataset(torch.randn(64, 32), torch.randint(0, 4, (64,)))
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 64), torch.nn.BatchNorm1d(64), torch.nn.ReLU(), torch.nn.Linear(64, 4)
    )
    made = ModelTracer.open(Task.classification(model=lambda: model, train=data), path)
    made.trace(16)
    return made


def test_a_traced_step_leaves_an_example_of_all_that_costs(tracer):
    """Every work of the first micro-batch but views, each as often as it was called."""
    (trace,) = tracer.traces
    examples = tracer.examples[id(trace)]
    counted: dict[Work, int] = {}
    for example in examples:
        counted[example.work] = counted.get(example.work, 0) + example.calls
    wanted = {w._replace(calls=1): w.calls for w in trace.work if w.kind != "view"}
    assert counted == wanted


def test_all_of_a_steps_operators_run_by_themselves(tracer):
    (trace,) = tracer.traces
    examples = tracer.examples[id(trace)]
    timed = own.measure(examples, 1, 5.0, {e.work: 1.0 for e in examples})
    assert {(t.kind, t.bytes) for t in timed} == {(e.work.kind, e.work.bytes) for e in examples}
