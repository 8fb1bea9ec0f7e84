"""Samples that cannot be read, before anything is trained: a few are passed over, many are not."""

import pytest

from autotrain.errors import AutotrainError
from autotrain.probe.reading import read
from autotrain.probe.task_data import load_samples, opened
from autotrain.task import Task


class Torn:
    """Numbers, some of which cannot be read."""

    def __init__(self, count, *torn, error=OSError):
        self.count, self.torn, self.error = count, torn, error

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.torn:
            raise self.error(f"torn {index}")
        return float(index)


def task(*torn, count=80, **more) -> Task:
    return Task(model=lambda: None, train=Torn(count, *torn, **more), loss=lambda *_: None)


def test_each_is_read_once_and_those_that_fail_are_told(tmp_path):
    found = read(Torn(9, 2, 5), [1, 2, 2, 3, 5, 1, 8])
    assert found.samples == {1: 1.0, 3: 3.0, 8: 8.0}
    assert [*found.failed] == [2, 5]
    assert found.hopeless is None
    assert "sample 2 is left out" in found.told(tmp_path)[0]
    assert "torn 2" in found.told(tmp_path)[0]


def test_more_than_half_is_the_codes_fault():
    assert read(Torn(4, 0, 1), [0, 1, 2, 3]).hopeless is None
    index, error = read(Torn(4, 0, 1, 3), [0, 1, 2, 3]).hopeless
    assert (index, str(error)) == (0, "torn 0")
    assert read(Torn(4), []).hopeless is None


def test_memory_that_runs_out_is_no_samples_fault():
    with pytest.raises(MemoryError):
        read(Torn(9, 2, error=MemoryError), [1, 2, 3])


def test_a_plan_reads_past_a_torn_first_sample_and_names_it(tmp_path, caplog):
    few, loading = load_samples(task(0), tmp_path / "task.py")
    assert 0 not in few.samples
    assert len(few.samples) == 7
    assert loading.seconds < 1
    assert "training sample 0 is left out" in caplog.text
    assert len(opened(task(0), tmp_path / "task.py", None).samples) == 7


def test_a_plan_names_the_first_where_all_are_torn(tmp_path):
    with pytest.raises(AutotrainError, match="loading a sample: OSError: torn 0"):
        load_samples(task(*range(80)), tmp_path / "task.py")
