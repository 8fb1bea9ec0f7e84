import multiprocessing
import os
import pickle
import sys
import types
from collections import Counter, OrderedDict, UserDict, defaultdict, namedtuple
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain import Loss, Task
from autotrain.blocks.augment import Augmented
from autotrain.errors import AutotrainError
from autotrain.task import (
    Kept,
    Portable,
    file_sha256,
    hold_out,
    load_module,
    load_task,
    map_tensors,
    subset,
)
from autotrain.usercode import CODE_BYTES

WORKING = """
from autotrain import Task
def task(data, width=8):
    return Task(model=lambda: None, train=[data, width], loss=lambda model, batch: None)
"""


@pytest.fixture
def write(tmp_path):
    def write(source, name="my_task.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return path

    return write


@pytest.fixture(autouse=True)
def clean_imports():
    before, paths = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]
    sys.path[:] = paths


def refused(path, options=None):
    with pytest.raises(AutotrainError) as caught:
        load_task(path, "data", options or {})
    assert caught.value.exit_code == 1
    return caught.value


# --- loading -------------------------------------------------------------------------------


def test_a_task_gets_its_data_as_a_path_and_its_options(write, tmp_path):
    made = load_task(write(WORKING), str(tmp_path), {"width": 16})
    assert made.train == [tmp_path, 16]
    assert load_task(write(WORKING), None, {}).train == [None, 8]


def test_a_missing_function_is_named_with_what_to_write(write):
    error = refused(write("x = 1\n"))
    assert error.message.endswith("my_task.py: defines no function `task`")
    assert "def task(data" in error.hint


@pytest.mark.parametrize(
    ("source", "place", "words"),
    [
        ("x = 1\ndef task(:\n", "my_task.py:2: SyntaxError: ", "invalid syntax"),
        ("if x:\npass\n", "my_task.py:2: IndentationError: ", "indented block"),
        ("\n\nimport no_such_module\n", "my_task.py:3: ModuleNotFoundError: ", "no_such_module"),
        ("def task(data):\n    return 1 / 0\n", "my_task.py:2: ZeroDivisionError: ", "division"),
        ("def task(data):\n    eval('1 +')\n", "my_task.py:2: SyntaxError: ", "invalid syntax"),
        ("def task():\n    pass\n", "my_task.py: TypeError: ", "positional argument"),
        ("def task(data, width):\n    pass\n", "my_task.py: TypeError: ", "width"),
        (b"x = '\xff'\n", "my_task.py:1: SyntaxError: ", "utf-8"),
        (b"x = 1\0\n", "my_task.py: SyntaxError: ", "null bytes"),
    ],
)
def test_an_error_of_the_users_code_names_its_file_and_line(write, source, place, words):
    error = refused(write(source))
    assert place in error.message
    assert words in error.message
    assert "task's own code" in error.hint


def test_an_error_in_a_helper_beside_the_task_names_the_helper(write):
    write("def build():\n    raise RuntimeError('no')\n", "my_helper.py")
    error = refused(write("import my_helper\ndef task(data):\n    my_helper.build()\n"))
    assert "my_helper.py:2: RuntimeError: no" in error.message


def test_an_error_deep_in_a_library_names_the_tasks_own_line(write):
    error = refused(write("import json\ndef task(data):\n    return json.loads('{')\n"))
    assert "my_task.py:3: JSONDecodeError" in error.message


def test_an_error_meant_for_people_passes_as_it_is(write):
    source = "from autotrain.errors import AutotrainError\ndef task(data):\n"
    error = refused(write(source + "    raise AutotrainError('no clips in x', 'record some')\n"))
    assert (error.message, error.hint) == ("no clips in x", "record some")


def test_a_task_that_returns_something_else_is_told_what(write):
    assert "returned dict, not autotrain.Task" in refused(write("def task(d): return {}")).message
    assert "returned NoneType" in refused(write("def task(d): pass")).message


def test_an_unknown_option_is_refused_with_the_ones_there_are(write):
    error = refused(write(WORKING), {"witdh": 16})
    assert "no option 'witdh'" in error.message
    assert "its options: width" in error.hint


def test_a_task_with_open_options_takes_any(write):
    source = WORKING.replace("width=8", "**options").replace("[data, width]", "[data, options]")
    assert load_task(write(source), None, {"width": 16}).train == [None, {"width": 16}]


@pytest.mark.parametrize("name", ["gone.py", "."])
def test_a_task_file_that_cannot_be_read_is_the_users_error(tmp_path, name):
    assert "name an existing task file" in refused(tmp_path / name).hint


def test_a_file_of_another_kind_is_refused(write):
    assert "not a Python file" in refused(write("{}", "task.json")).message


@pytest.mark.parametrize("name", ["my-task.py", "my.task.py", "1 task.py", "কাজ.py"])
def test_any_file_name_will_do_and_its_objects_can_be_pickled(write, name):
    module = load_module(write("class Clip:\n    pass\n", name))
    assert isinstance(pickle.loads(pickle.dumps(module.Clip())), module.Clip)


def test_a_file_is_loaded_once_until_it_changes(write, monkeypatch):
    """Even by an edit of equal length within the second, which Python's own cache would miss."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = write("WIDTH = 128\n")
    first = load_module(path)
    assert load_module(path) is first
    assert load_module(write("WIDTH = 256\n")).WIDTH == 256
    assert not (path.parent / "__pycache__").exists()


def test_equal_files_in_two_folders_know_where_they_are(write):
    paths = [write("", "a/task.py"), write("", "b/task.py")]
    assert [load_module(path).__file__ for path in paths] == [str(path) for path in paths]


def test_a_failed_import_is_tried_again(write):
    path = write("import my_late_helper\nfrom autotrain import Task\ntask = my_late_helper.task\n")
    refused(path)
    write(WORKING, "my_late_helper.py")
    assert load_task(path, None, {}).train == [None, 8]


# --- into workers --------------------------------------------------------------------------


def in_a_spawned_process(portable, name):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(attrgetter(name), portable).result(timeout=60)


CLIPS = """
class Clips:
    def __init__(self, width): self.width = width
    @property
    def process(self):
        import os
        return os.getpid(), self.width
"""


def test_an_object_of_a_task_file_reaches_a_spawned_process(write):
    path = write(CLIPS)
    portable = Portable(load_module(path).Clips(16), path)
    process, width = in_a_spawned_process(portable, "value.process")
    assert process != os.getpid()
    assert width == 16


def test_a_file_edited_during_a_run_does_not_break_or_change_its_later_workers(write):
    path = write(CLIPS)
    portable = Portable(load_module(path).Clips(16), path)
    write(CLIPS.replace("self.width\n", "-self.width\n"))
    assert in_a_spawned_process(portable, "value.process")[1] == 16
    write("this is half an edit (")
    assert in_a_spawned_process(portable, "value.process")[1] == 16


# --- batches -------------------------------------------------------------------------------

Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True, slots=True)
class Frozen:
    features: torch.Tensor
    size: int = field(init=False, default=3)


class Batch(UserDict):
    """As a tokenizer returns."""


def ones():
    return torch.ones(2)


def doubled(batch):
    return map_tensors(lambda tensor: tensor * 2, batch)


def figures(batch):
    found = []
    map_tensors(lambda tensor: found.extend(tensor.flatten().tolist()), batch)
    return found


@pytest.mark.parametrize(
    "batch",
    [
        ones(), [ones(), ones()], (ones(), "text"), Pair(ones(), 1), {"x": {"y": [ones()]}},
        OrderedDict(x=ones()), defaultdict(list, x=ones()), Batch(x=ones()), Frozen(ones()),
        types.MappingProxyType({"x": ones()}), [(Frozen(ones()), {"n": None})],
    ],
    ids=lambda batch: type(batch).__name__,
)  # fmt: skip
def test_every_tensor_in_a_container_is_mapped_and_the_container_keeps_its_type(batch):
    mapped = doubled(batch)
    assert type(mapped) is type(batch)
    assert figures(mapped) == [2.0] * len(figures(batch))
    assert set(figures(batch)) == {1.0}


def test_what_is_no_tensor_passes_as_it_is():
    marker = object()
    batch = {"text": "abc", "n": 3, "none": None, "count": Counter(a=2), "any": marker, "t": Pair}
    assert doubled(batch) == batch
    assert doubled(batch)["any"] is marker


def test_a_defaultdict_keeps_its_factory():
    assert doubled(defaultdict(list, x=ones()))["new"] == []


def test_a_packed_sequence_moves_but_its_sizes_stay_on_the_cpu():
    """torch refuses a PackedSequence whose batch_sizes are on a device."""
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2), torch.ones(3)], enforce_sorted=False)
    moved = map_tensors(lambda tensor: tensor.to("meta"), packed)
    assert (moved.data.device.type, moved.sorted_indices.device.type) == ("meta", "meta")
    assert moved.batch_sizes.tolist() == packed.batch_sizes.tolist()


# --- splits and ready-made tasks -----------------------------------------------------------


@settings(deadline=None)
@given(st.integers(2, 300), st.floats(0.001, 0.999), st.integers(0, 9))
def test_a_split_parts_all_samples_and_leaves_none_without(count, share, seed):
    train, valid = hold_out(count, share, seed)
    assert sorted(train + valid) == list(range(count))
    assert train == sorted(train)
    assert valid == sorted(valid)
    assert train
    assert valid
    assert abs(len(valid) - count * share) <= 1
    assert hold_out(count, share, seed) == (train, valid)


def test_a_split_depends_on_the_seed():
    assert hold_out(100, 0.2, 1) != hold_out(100, 0.2, 2)


def test_a_larger_share_only_adds_to_what_is_held_out():
    assert set(hold_out(100, 0.1, 0)[1]) < set(hold_out(100, 0.3, 0)[1])


@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_cannot_be_split(count):
    with pytest.raises(AutotrainError, match="cannot be split"):
        hold_out(count, 0.1, 0)


def test_a_subset_shows_the_chosen_samples():
    view = subset("abcdef", (4, 0))
    assert (len(view), view[0], view[1]) == (2, "e", "a")


def halves(loss, model, inputs, targets):
    parts = [loss(model, (inputs[a:b], targets[a:b])) for a, b in ((0, 1), (1, 5))]
    return sum(p.total for p in parts), sum(p.weight for p in parts)


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_a_loss_is_the_same_sum_however_the_batch_is_cut(name):
    torch.manual_seed(0)
    model, inputs = torch.nn.Linear(4, 3), torch.randn(5, 4)
    targets = torch.arange(5) % 3 if name == "classification" else torch.randn(5, 3)
    made = getattr(Task, name)(model=lambda: model, train=[])
    whole = made.loss(model, (inputs, targets))
    total, weight = halves(made.loss, model, inputs, targets)
    assert isinstance(whole, Loss)
    assert weight == whole.weight == (5 if name == "classification" else 15)
    torch.testing.assert_close(total, whole.total)


def test_classification_counts_right_answers_and_smooths_only_in_training():
    model = torch.nn.Identity()
    batch = torch.tensor([[4.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    made = Task.classification(model=lambda: model, train=[], label_smoothing=0.2)
    ((right, count),) = made.measure(model, batch).values()
    assert (int(right), count, made.monitor, made.better) == (1, 2, "accuracy", "higher")
    smoothed = made.loss(model.train(), batch).total
    plain = made.loss(model.eval(), batch).total
    assert plain == torch.nn.functional.cross_entropy(*batch, reduction="sum") != smoothed


# --- what comes after training -------------------------------------------------------------


def test_a_task_may_bring_a_test_set_and_a_way_to_predict():
    plain = Task(model=lambda: None, train=[1], loss=lambda model, batch: None)
    assert (plain.test, plain.predict, plain.confusion, plain.classes) == (None,) * 4

    def predict(model, given, out):
        return {"class": given}

    more = {"test": [2], "predict": predict, "classes": ["a", "b"]}
    made = Task.classification(model=lambda: None, train=[1], **more)
    assert (made.test, made.predict("model", "x.png", None)) == ([2], {"class": "x.png"})


@pytest.mark.parametrize("name", ["predict", "confusion"])
def test_what_is_to_be_called_must_be_a_function(name):
    with pytest.raises(AutotrainError, match=f"{name} is a str, not a function") as caught:
        Task(model=lambda: None, train=[1], loss=lambda model, batch: None, **{name: "yes"})
    assert "docs/own-model.md" in caught.value.hint


def test_augmented_samples_test_nothing():
    with pytest.raises(AutotrainError, match="Augmented samples are for training"):
        Task.classification(model=lambda: None, train=[1], test=Augmented([(1, 0)], lambda x: x))


def test_class_weights_count_in_the_sum_and_in_the_weight():
    torch.manual_seed(0)
    model, inputs, weights = torch.nn.Linear(4, 3), torch.randn(5, 4), [1.0, 0.5, 4.0]
    targets = torch.arange(5) % 3
    made = Task.classification(model=lambda: model, train=[], class_weights=weights)
    whole = made.loss(model, (inputs, targets))
    total, weight = halves(made.loss, model, inputs, targets)
    torch.testing.assert_close(total, whole.total)
    assert float(weight) == float(whole.weight) == 1 + 0.5 + 4 + 1 + 0.5
    usual = torch.nn.functional.cross_entropy(model(inputs), targets, torch.tensor(weights))
    torch.testing.assert_close(whole.total / whole.weight, usual)
    mixed = made.loss(model, (inputs, torch.nn.functional.one_hot(targets, 3).double()))
    torch.testing.assert_close(mixed.total / mixed.weight, usual)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 4.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_sample_without_a_label_counts_nowhere(weights, smoothing):
    """torch's -100: not in the sum, not in the weight, not among the right or wrong answers."""
    torch.manual_seed(0)
    model, inputs = torch.nn.Linear(4, 3), torch.randn(8, 4)
    targets = torch.tensor([0, -100, 1, 2, -100, -100, 1, 0])
    known = targets >= 0
    made = Task.classification(
        model=lambda: model, train=[], class_weights=weights, label_smoothing=smoothing
    )
    whole, labelled = (
        made.loss(model, batch) for batch in ((inputs, targets), (inputs[known], targets[known]))
    )
    torch.testing.assert_close(whole.total, labelled.total)
    assert float(whole.weight) == float(labelled.weight) > 0
    right, count = made.measure(model, (inputs, targets))["accuracy"]
    assert int(count) == 5
    assert int(right) == int((model(inputs[known]).argmax(-1) == targets[known]).sum())
    none = made.loss(model, (inputs, torch.full((8,), -100)))
    assert float(none.total.detach()) == float(none.weight) == 0


def test_classification_tells_which_class_was_taken_for_which():
    logits = torch.tensor([[4.0, 0, 0], [4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]])
    made = Task.classification(model=lambda: None, train=[])
    found = made.confusion(torch.nn.Identity(), (logits, torch.tensor([0, 1, 1, -100])))
    assert found.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device without an end")
def test_a_task_file_without_an_end_is_refused_before_it_fills_the_memory():
    with pytest.raises(AutotrainError, match="/dev/full: not a regular file"):
        file_sha256(Path("/dev/full"))


def test_a_task_file_larger_than_anybody_writes_is_refused(tmp_path):
    path = tmp_path / "task.py"
    with open(path, "wb") as file:
        file.truncate(CODE_BYTES + 1)
    with pytest.raises(AutotrainError, match="larger than"):
        file_sha256(path)


FACTS = """
from autotrain import Task
def task(data, *, kept=None, width=8):
    facts = {"names": ("b", "a"), "data": str(data)} if kept is None else kept.facts
    train = ["read"] if kept is None else [kept.split]
    return Task(model=lambda: None, train=train, loss=lambda model, batch: None, facts=facts)
"""


def test_facts_are_told_once_and_come_back(write):
    path = write(FACTS)
    told = load_task(path, "here", {"width": 2}).facts
    assert told == {"names": ["b", "a"], "data": "here"}
    again = load_task(path, None, {"width": 2}, Kept(told, "test"))
    assert (again.facts, again.train) == (told, ["test"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kept=None, width", "width", "does not take them back"),
        ("str(data)", "{1, 2}", "set is not JSON serializable"),
        ("str(data)", "float('nan')", "the task's facts"),
        ("facts=facts", "facts=[1]", "facts are a list"),
    ],
)
def test_facts_that_could_not_come_back_are_refused(write, old, new, said):
    source = FACTS.replace(old, new)
    if "kept=None" not in source:
        source = source.replace("kept is None", "True")
    with pytest.raises(AutotrainError) as refused:
        load_task(write(source), "here", {})
    assert said in refused.value.message


def test_what_is_given_back_is_no_option(write):
    with pytest.raises(AutotrainError, match="takes no option 'kept'"):
        load_task(write(FACTS), "here", {"kept": 1})
