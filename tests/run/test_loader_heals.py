"""What goes wrong with samples and loader workers, and how a run goes on: with real processes,
real signals and samples that really hang.
"""

import ctypes
import dataclasses
import errno
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import types

import pytest
import torch

from autotrain.errors import AutotrainError
from autotrain.events import Evaluated, Healed, Step, Stopped, Warned
from autotrain.run.loading import workers as loader_workers
from autotrain.run.loading.blame import fitting
from autotrain.run.loop import train
from autotrain.task import Task

from .plans import make_plan
from .tasks import Noisy, NoisyNet, noisy_task, sequence_task

METHODS = ["fork", "spawn", "forkserver"] if sys.platform != "win32" else ["spawn"]


def events_of(plan, task, directory, **more):
    (directory / "task.py").touch()
    return list(train(plan, task, directory, task_file=directory / "task.py", **more))


def healed(events):
    return [e for e in events if isinstance(e, Healed)]


def figures(events):
    """All that a run computes."""
    return [(e.step, e.loss) for e in events if isinstance(e, Step | Evaluated)]


class Faulty(Noisy):
    """Does what `faults` says for an index; `marks` is a folder where each visit leaves a file."""

    def __init__(self, count, faults, marks=None):
        super().__init__(count)
        self.faults, self.marks = faults, marks

    def visits(self, index):
        if self.marks is None:
            return 1
        (self.marks / f"{index}-{time.monotonic_ns()}").touch()
        return len(list(self.marks.glob(f"{index}-*")))

    def __getitem__(self, index):
        fault, often = self.faults.get(index, (None, 0))
        if fault is not None and self.visits(index) <= often:
            fault()
        return super().__getitem__(index)


ALWAYS = 1 << 30


def cannot_decode():
    raise OSError("cannot decode")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(9)


def hang():
    time.sleep(600)


def faulty(faults, marks=None, count=45, valid_faults=None):
    """45 samples to train on, 9 held out."""
    valid = Faulty(9, valid_faults or {})
    return Task.classification(model=NoisyNet, train=Faulty(count, faults, marks), valid=valid)


# --- bad samples -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_is_left_out_and_named_once(tmp_path, workers):
    """By its number in the person's own dataset, with file and line; three epochs read it."""
    events = events_of(
        make_plan(loader={"workers": workers}), faulty({3: (cannot_decode, ALWAYS)}), tmp_path
    )
    assert isinstance(events[-1], Stopped)
    assert events[-1].reason == "finished"
    [told] = healed(events)
    assert told.fault.startswith("sample 3 of the training set: OSError: cannot decode (")
    assert "test_loader_heals.py:" in told.fault
    assert "the other 44 samples" in told.cure
    assert told.amends == {}


def test_a_sample_of_a_split_is_named_as_its_author_knows_it(tmp_path):
    """Here the training set is a part of the task's."""
    task = noisy_task()
    broken = dataclasses.replace(task, train=Faulty(45, {3: (cannot_decode, ALWAYS)}))
    [told] = healed(events_of(make_plan(), broken, tmp_path))
    assert told.fault.startswith("sample 3 of the ")


def test_workers_and_a_resume_leave_out_the_same_samples(tmp_path):
    """To the bit; and it is not told again after a resume."""
    task = faulty({3: (cannot_decode, ALWAYS)}, valid_faults={5: (cannot_decode, ALWAYS)})
    found = []
    for workers in (0, 2):
        (tmp_path / str(workers)).mkdir()
        found.append(
            events_of(make_plan(loader={"workers": workers}), task, tmp_path / str(workers))
        )
    assert figures(found[0]) == figures(found[1])
    parts = tmp_path / "parts"
    parts.mkdir()
    first = events_of(make_plan(), task, parts, max_steps=9)
    second = events_of(make_plan(), task, parts, resume=True)
    whole = figures(found[0])
    assert figures(second) == whole[-len(figures(second)) :]
    assert len(healed(first)) == 2
    assert healed(second) == []


def test_a_read_that_fails_once_is_read_again(tmp_path):
    """With the same draws: the figures are those of a run in which nothing failed."""
    (tmp_path / "marks").mkdir()

    def fail():
        torch.rand(3)
        cannot_decode()

    flaky = faulty(dict.fromkeys(range(3, 45, 4), (fail, 1)), tmp_path / "marks")
    events = events_of(make_plan(), flaky, tmp_path)
    assert healed(events) == []
    (tmp_path / "whole").mkdir()
    assert figures(events) == figures(events_of(make_plan(), faulty({}), tmp_path / "whole"))


def test_the_gradient_is_exact_for_what_is_left(tmp_path):
    """As if the sample had never been in its micro-batch."""

    class Line(torch.utils.data.Dataset):
        def __init__(self, bad):
            self.bad = bad

        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == self.bad:
                raise ValueError("torn")
            return torch.tensor([float(index + 1)]), torch.tensor([1.0])

    def weights(task, name):
        kept = {}

        def model():
            kept["model"] = torch.nn.Linear(1, 1, bias=False)
            torch.nn.init.ones_(kept["model"].weight)
            return kept["model"]

        (tmp_path / name).mkdir()
        plan = make_plan(
            batch={"micro_batch": 2, "accum_steps": 2, "global_batch": 4},
            optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "clip_norm": None},
            schedule={"name": "constant", "warmup_steps": 0, "min_lr": None},
            train={"epochs": 1},
        )
        events_of(plan, dataclasses.replace(task, model=model), tmp_path / name)
        return float(kept["model"].weight.detach())

    left = [index for index in range(4) if index != 2]
    task = Task.regression(model=None, train=Line(2), valid=[Line(9)[0]])
    only = Task.regression(
        model=None, train=torch.utils.data.Subset(Line(9), left), valid=[Line(9)[0]]
    )
    # Squared errors over 3 samples; x is 1, 2 and 4.
    expected = 1.0 - 0.1 * sum(2 * (x - 1) * x for x in (1, 2, 4)) / 3
    assert weights(task, "bad") == pytest.approx(expected, abs=1e-6)
    assert weights(only, "only") == pytest.approx(expected, abs=1e-6)


def test_a_bad_validation_sample_leaves_figures_over_the_rest(tmp_path):
    task = faulty({}, valid_faults={5: (cannot_decode, ALWAYS)})
    [told] = healed(events_of(make_plan(), task, tmp_path))
    assert told.fault.startswith("sample 5 of the validation set: ")
    assert told.cure == "put aside: figures are over the other 8 validation samples"


def test_code_that_fails_for_every_sample_stops_the_run_at_once(tmp_path):
    """In the first micro-batch, with its line."""
    every = dict.fromkeys(range(45), (cannot_decode, ALWAYS))
    with pytest.raises(AutotrainError) as caught:
        events_of(make_plan(), faulty(every), tmp_path)
    assert "of the training set: OSError: cannot decode (" in caught.value.message
    assert "no sample before or beside it could be used" in caught.value.message
    assert "\n" not in caught.value.message


def test_more_bad_samples_than_the_plan_bears_stop_the_run(tmp_path):
    """With names and the key that bounds them; a larger share bears them."""
    some = dict.fromkeys((3, 11, 20, 29), (cannot_decode, ALWAYS))
    with pytest.raises(AutotrainError, match=r"heal\.bad_samples = 0\.05 bears 2") as caught:
        events_of(make_plan(heal={"bad_samples": 0.05}), faulty(some), tmp_path)
    assert caught.value.message.count("cannot decode") == 3
    (tmp_path / "more").mkdir()
    events = events_of(make_plan(heal={"bad_samples": 0.1}), faulty(some), tmp_path / "more")
    assert len(healed(events)) == 4


def test_memory_that_runs_out_in_a_sample_is_not_the_samples_fault(tmp_path):
    def starve():
        raise MemoryError("no room")

    plain = dataclasses.replace(faulty({3: (starve, ALWAYS)}), model=lambda: torch.nn.Linear(6, 2))
    with pytest.raises(AutotrainError, match="out of memory"):
        events_of(make_plan(), plain, tmp_path)


class Odd(Noisy):
    """One sample of another shape."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (torch.cat([x, x]), y) if index == 3 else (x, y)


@pytest.mark.parametrize("micro", [1, 2, 8])
def test_a_sample_that_does_not_collate_is_found(tmp_path, micro):
    """Even among two, where others of the set decide; alone in its micro-batch, the model meets
    it."""
    cut = {"micro_batch": micro, "accum_steps": 8 // micro, "global_batch": 8}
    task = Task.classification(model=NoisyNet, train=Odd(48), valid=Noisy(9))
    if micro == 1:
        with pytest.raises(AutotrainError):
            events_of(make_plan(batch=cut), task, tmp_path)
        return
    [told] = healed(events_of(make_plan(batch=cut), task, tmp_path))
    assert told.fault.startswith("sample 3 of the training set: it does not collate with the other")


def test_a_collate_that_never_works_is_the_error_it_was(tmp_path):
    task = dataclasses.replace(sequence_task(), collate=None)
    with pytest.raises(AutotrainError, match=r"collate of . samples: RuntimeError: stack expects"):
        events_of(make_plan(), task, tmp_path)


def test_the_largest_set_that_fits_is_kept():
    """The odd ones first, in the middle and last; and none where nothing is the usual."""

    def alike(samples):
        return len(set(samples)) <= 1 and "x" not in samples

    assert fitting(list("babaaaaaa"), [], alike) == [1, 3, 4, 5, 6, 7, 8]
    assert fitting(list("aax"), [], alike) == [0, 1]
    assert fitting(list("ba"), list("aaa"), alike) == [1]
    assert fitting(list("abcd"), [], alike) is None
    assert fitting(list("xx"), [], alike) is None


def test_a_window_without_a_usable_sample_makes_no_step(tmp_path):
    """It is said, and the run goes on."""
    cut = {"micro_batch": 1, "accum_steps": 1, "global_batch": 1}
    task = Task.classification(
        model=lambda: torch.nn.Linear(6, 2), train=Faulty(12, {3: (cannot_decode, ALWAYS)}),
        valid=Noisy(4),
    )  # fmt: skip
    events = events_of(make_plan(batch=cut, train={"epochs": 2}), task, tmp_path)
    notes = [e.message for e in events if isinstance(e, Warned)]
    assert sum("could be used: the weights stay as they were" in note for note in notes) == 2
    assert events[-1].reason == "finished"


# --- workers that die or hang ------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end", [die, leave])
def test_a_worker_that_dies_once_changes_nothing(tmp_path, method, end):
    """New ones go on with what it owed: the figures are those of an undisturbed run."""
    if end is leave and method != "fork":
        pytest.skip("one way to die is enough for the slow ones")
    (tmp_path / "marks").mkdir()
    loader = {"workers": 2 if method == "fork" else 1, "start_method": method}
    plan = make_plan(loader=loader, train={"epochs": 2})
    events = events_of(plan, faulty({3: (end, 1)}, tmp_path / "marks"), tmp_path)
    [told] = healed(events)
    said = "was killed by SIGKILL" if end is die else "ended with exit code 9"
    assert told.fault == f"a loader worker {said}, reading sample 3 of the training set"
    (tmp_path / "whole").mkdir()
    calm = events_of(make_plan(train={"epochs": 2}), faulty({}), tmp_path / "whole")
    assert figures(events) == figures(calm)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_sample_that_kills_its_worker_again_is_put_aside(tmp_path):
    """The run computes what it would without it, and after a resume nobody reads it again."""
    marks = tmp_path / "marks"
    marks.mkdir()
    plan = make_plan(loader={"workers": 2})
    events = events_of(plan, faulty({3: (die, ALWAYS)}, marks), tmp_path, max_steps=8)
    first, second = healed(events)
    assert first.fault.endswith("reading sample 3 of the training set")
    assert second.fault.startswith("sample 3 of the training set: the worker that reads it was kil")
    assert "put aside" in second.cure
    assert len(list(marks.iterdir())) == 2
    rest = events_of(plan, faulty({3: (die, ALWAYS)}, marks), tmp_path, resume=True)
    assert healed(rest) == []
    assert len(list(marks.iterdir())) == 2
    (tmp_path / "left").mkdir()
    left_out = faulty({3: (cannot_decode, ALWAYS)})
    calm = events_of(make_plan(), left_out, tmp_path / "left")
    assert figures(rest) == figures(calm)[-len(figures(rest)) :]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_sample_that_kills_before_what_went_ahead_was_fetched_is_put_aside_as_soon(tmp_path):
    """What a worker hands over goes with it, so new ones make that first."""
    marks = tmp_path / "marks"
    marks.mkdir()
    task = faulty({3: (die, ALWAYS)}, marks)

    def slow(model, batch):
        time.sleep(0.1 * model.training)
        return task.loss(model, batch)

    plan = make_plan(loader={"workers": 1}, train={"epochs": 1})
    events = events_of(plan, dataclasses.replace(task, loss=slow), tmp_path)
    first, second = healed(events)
    assert "reading sample 3" in first.fault
    assert "put aside" in second.cure
    assert len(list(marks.iterdir())) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_workers_that_always_die_become_fewer_and_then_the_fault_is_named(tmp_path):
    """Wherever they are: nothing in the samples explains it."""
    task = dataclasses.replace(faulty({}), collate=_deadly)
    events, run = (
        [],
        train(make_plan(loader={"workers": 2}), task, tmp_path, task_file=tmp_path / "task.py"),
    )
    with pytest.raises(AutotrainError) as caught:
        _drain(run, events)
    assert "was killed by SIGKILL, collating 4 samples" in caught.value.message
    assert [e.amends for e in healed(events) if e.amends] == [{"loader.workers": [2, 1]}]


def _full(samples):
    """What torch says in a worker where /dev/shm is full."""
    worker = torch.utils.data.get_worker_info()
    if worker is not None and worker.num_workers > 1:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>")
    return torch.utils.data.default_collate(samples)


def test_shared_memory_that_is_full_is_no_samples_fault(tmp_path):
    """Micro-batches come through pipes; where that does not help, fewer workers need less of it."""
    task = dataclasses.replace(faulty({}), collate=_full)
    first, second = healed(events_of(make_plan(loader={"workers": 2}), task, tmp_path))
    assert "shared memory" in first.fault
    assert "through pipes" in first.cure
    assert "shared memory" in second.fault
    assert second.amends == {"loader.workers": [2, 1]}


class Wide(Noisy):
    """Micro-batches of 1.5 MiB."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return torch.cat([x, torch.full((100_000,), float(index))]), y


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is files there")
@pytest.mark.parametrize("method", METHODS[:2])
def test_through_pipes_a_run_computes_the_same(tmp_path, method):
    """Where shared memory is files, and `ulimit -f` keeps those small."""
    resource = pytest.importorskip("resource")
    task = Task.classification(
        model=lambda: torch.nn.Sequential(Short(), NoisyNet()), train=Wide(24), valid=Wide(9)
    )
    for name in ("narrow", "wide"):
        (tmp_path / name).mkdir()
    plan = make_plan(loader={"workers": 2, "start_method": method}, train={"epochs": 2})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        events = events_of(plan, task, tmp_path / "narrow")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    [told] = healed(events)
    assert "through pipes" in told.cure
    assert told.amends == {}
    whole = events_of(make_plan(train={"epochs": 2}), task, tmp_path / "wide")
    assert figures(events) == figures(whole)


class Short(torch.nn.Module):
    def forward(self, x):
        return x[:, :6]


def no_more_files():
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_sample_that_meets_too_many_open_files_is_not_put_aside(tmp_path):
    """The run ends with what to raise, not without its samples."""
    with pytest.raises(AutotrainError, match="Too many open files") as caught:
        events_of(make_plan(), faulty({3: (no_more_files, ALWAYS)}), tmp_path)
    assert "raise `ulimit -n`" in caught.value.hint


def _drain(run, events):
    for event in run:
        events.append(event)


def _deadly(_samples):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("often", [1, ALWAYS])
def test_a_worker_that_hangs_is_replaced_and_its_stack_kept(tmp_path, often):
    """At the same sample again: that one is put aside."""
    marks = tmp_path / "marks"
    marks.mkdir()
    plan = make_plan(loader={"workers": 2, "timeout_seconds": 0.5}, train={"epochs": 1})
    events = events_of(plan, faulty({3: (hang, often)}, marks), tmp_path)
    told = healed(events)
    assert len(told) == (1 if often == 1 else 2)
    assert "hangs: nothing for 0.5 s, reading sample 3 of the training set" in told[0].fault
    assert 0.5 <= told[0].cost_seconds < 5
    [stacks] = tmp_path.glob("stacks-*.txt")
    assert str(stacks) in told[0].fault
    text = stacks.read_text()
    assert "in hang" in text
    assert text.count("worker ") == 2
    if often == 1:
        (tmp_path / "whole").mkdir()
        plan = make_plan(train={"epochs": 1})
        assert figures(events) == figures(events_of(plan, faulty({}), tmp_path / "whole"))


def crash():
    ctypes.string_at(0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_crash_in_native_code_is_told_with_its_line(tmp_path):
    (tmp_path / "marks").mkdir()
    task = faulty({3: (crash, 1)}, tmp_path / "marks")
    [told] = healed(events_of(make_plan(loader={"workers": 1}), task, tmp_path))
    assert "was killed by SIGSEGV (" in told.fault
    assert "ctypes" in told.fault


class Unstartable(Noisy):
    """Ends the process that unpickles it."""

    def __setstate__(self, state):
        os._exit(3)


def test_workers_that_never_start_are_an_error_at_once(tmp_path):
    task = Task.classification(model=NoisyNet, train=Unstartable(45), valid=Noisy(9))
    plan = make_plan(loader={"workers": 1, "start_method": "forkserver"})
    with pytest.raises(AutotrainError, match="do not start: each ended with exit code 3"):
        events_of(plan, task, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_worker_that_somebody_ended_is_replaced(tmp_path):
    """Where nobody asked the run itself to stop."""
    (tmp_path / "marks").mkdir()
    task = faulty({3: (lambda: os.kill(os.getpid(), signal.SIGTERM), 1)}, tmp_path / "marks")
    events = events_of(make_plan(loader={"workers": 2}), task, tmp_path)
    [told] = healed(events)
    assert "was killed by SIGTERM" in told.fault
    assert told.amends == {}
    (tmp_path / "whole").mkdir()
    assert figures(events) == figures(events_of(make_plan(), faulty({}), tmp_path / "whole"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc")
def test_new_workers_leave_nothing_behind(tmp_path, monkeypatch):
    """No process, no open file, no folder of theirs."""

    def open_files():
        return len(os.listdir("/proc/self/fd"))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = None
    for number in range(3):
        place = tmp_path / str(number)
        (place / "marks").mkdir(parents=True)
        task = faulty(dict.fromkeys((3, 9, 20), (die, 1)), place / "marks")
        assert len(healed(events_of(make_plan(loader={"workers": 2}), task, place))) > 1
        assert not list(tmp_path.glob("autotrain-*"))
        assert multiprocessing.active_children() == []
        before = before or open_files()
    assert open_files() <= before


def test_one_sample_left_for_a_norm_over_the_batch_is_passed_over(tmp_path):
    """It is said once; BatchNorm would refuse it."""
    cut = {"micro_batch": 2, "accum_steps": 4, "global_batch": 8}
    task = Task.classification(
        model=NoisyNet, train=Faulty(48, {3: (cannot_decode, ALWAYS)}), valid=Noisy(9)
    )
    events = events_of(make_plan(batch=cut), task, tmp_path)
    assert events[-1].reason == "finished"
    assert sum("BatchNorm needs two" in e.message for e in events if isinstance(e, Warned)) == 1


class Slow(Noisy):
    def __getitem__(self, index):
        time.sleep(0.2)
        return super().__getitem__(index)


def test_a_slow_micro_batch_is_not_a_hanging_one(tmp_path):
    """Four samples take longer than the limit, each of them less."""
    task = Task.classification(model=NoisyNet, train=Slow(8), valid=Noisy(9))
    plan = make_plan(loader={"workers": 1, "timeout_seconds": 0.5}, train={"epochs": 1})
    assert healed(events_of(plan, task, tmp_path)) == []


def test_a_loader_in_this_process_that_hangs_is_told_once(tmp_path, caplog):
    """With the stack; it cannot be put right, but here it comes back."""
    task = Task.classification(
        model=NoisyNet, train=Faulty(45, {3: (lambda: time.sleep(1.0), ALWAYS)}), valid=Noisy(9)
    )
    plan = make_plan(loader={"timeout_seconds": 0.3}, train={"epochs": 2})
    events = events_of(plan, task, tmp_path)
    told = [e for e in events if isinstance(e, Warned)]
    assert len(told) == len(caplog.records) == 1
    assert "stuck for 0.3 s, reading sample 3 of the training set" in told[0].message
    [stacks] = tmp_path.glob("stacks-*.txt")
    assert "time.sleep(1.0)" in stacks.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_worker_that_comes_after_the_end_of_its_run_says_nothing(tmp_path, capfd):
    """The folder that its stacks would go to was cleared away while it started."""
    source = types.SimpleNamespace(seed=0, carried=types.SimpleNamespace(value=[None]))
    context = multiprocessing.get_context("fork")
    requests, results = context.Pipe(duplex=False)[0], context.Pipe(duplex=False)[1]
    stacks = tmp_path / "cleared away" / "0.txt"
    process = context.Process(
        target=loader_workers._work,
        args=(0, 1, source, requests, results, [0, 0], stacks, [], False),
    )
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert "Traceback" not in capfd.readouterr().err
