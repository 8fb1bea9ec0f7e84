"""What audio and images share: damaged files, the cache, splits, options, starting weights."""

import logging
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from autotrain.blocks.options import between, needed, one_of
from autotrain.blocks.samples import Loaded, keep_readable, split_by_name
from autotrain.blocks.weights import load_weights, read_weights
from autotrain.errors import AutotrainError
from autotrain.kept import keeping, reads


def load(item):
    if item < 0:
        raise AutotrainError(f"file{item}: torn")
    return torch.full((10,), float(item))


def test_up_to_a_tenth_is_skipped_and_named_once(caplog):
    with caplog.at_level(logging.WARNING):
        for _stage in range(3):
            assert keep_readable([-1, *range(9)], load, "clips") == list(range(9))
    assert [r.getMessage() for r in caplog.records] == ["skipped: file-1: torn"]


def test_more_than_a_tenth_is_refused_with_names():
    with pytest.raises(AutotrainError, match="2 of 10 clips are damaged: file-1: torn, file-2"):
        keep_readable([-1, -2, *range(8)], load, "clips")


def test_fewer_than_two_samples_are_refused():
    with pytest.raises(AutotrainError, match="clips that can be read: 1; 2 are the least"):
        keep_readable([1], load, "clips")


def test_a_sample_that_turns_out_damaged_is_replaced_by_the_next(caplog):
    loaded = Loaded([*range(9), -1], load, "clips")
    with caplog.at_level(logging.WARNING):
        used, tensor = loaded[9]
        assert loaded[9][0] == 0
    assert used == 0
    assert tensor[0] == 0
    assert len(caplog.records) == 1


def test_more_than_a_tenth_damaged_is_refused_while_loading():
    loaded = Loaded([*range(8), -1, -2], load, "clips")
    with pytest.raises(AutotrainError, match="2 of 10 clips are damaged"):
        loaded[8]


def test_the_cache_holds_no_more_than_its_bytes_and_is_not_pickled():
    loaded = Loaded(range(5), load, "clips", cache_bytes=100)
    assert [loaded[i][1][0].item() for i in range(5)] == [0, 1, 2, 3, 4]
    assert sorted(loaded.kept) == [0, 1]
    assert loaded[0][1] is loaded[0][1]
    copy = pickle.loads(pickle.dumps(loaded))
    assert (copy.kept, copy.kept_bytes) == ({}, 0)
    assert list(copy.items) == list(range(5))


def test_what_is_kept_lies_together_and_keeps_its_kind_and_values():
    def made(item):
        return torch.arange(item * 7.0).reshape(7, item).to(kinds[item % 3])

    kinds = (torch.float16, torch.float64, torch.uint8)
    loaded = Loaded(range(40), made, "clips")
    first = [loaded[i][1] for i in range(40)]
    for item, one in enumerate(first):
        assert torch.equal(one, made(item))
        assert one.dtype == kinds[item % 3]
        assert torch.equal(loaded[item][1], one)
    assert len({one.untyped_storage().data_ptr() for one in first[1:]}) == 1  # 0 holds nothing
    large = Loaded([1, 2], lambda item: torch.full((5 << 20,), float(item)), "clips")
    assert [float(large[i][1].mean()) for i in (0, 1, 0)] == [1, 2, 1]


def test_a_problem_of_one_file_is_told_once_however_it_is_read(caplog):
    def read(item):
        if item < 2:
            raise AutotrainError("clip.wav: torn")
        return load(item)

    loaded = Loaded(range(40), read, "clips")
    assert loaded[0][0] == 2
    assert loaded[1][0] == 2
    assert len(caplog.records) == 1


def test_a_loaded_set_ends_where_its_items_end():
    with pytest.raises(IndexError):
        Loaded([1], load, "clips")[1]


NAMES = st.text(st.characters(codec=None), max_size=5) | st.just("caf\udce9")  # not all are UTF-8


@given(st.lists(NAMES, max_size=50, unique=True), st.floats(0.01, 0.9))
def test_a_split_covers_all_once_and_does_not_depend_on_the_order(names, share):
    train, valid = split_by_name(names, share)
    assert sorted(train + valid) == list(range(len(names)))
    assert bool(train) == bool(names)
    assert bool(valid) == (len(names) > 1)
    backwards = list(reversed(names))
    assert {names[i] for i in valid} == {backwards[i] for i in split_by_name(backwards, share)[1]}


def test_options_are_refused_with_their_name_and_what_is_allowed():
    one_of("arch", "cnn", ["cnn", "other"])
    with pytest.raises(AutotrainError, match=r"task.options.arch: 'x' is not known") as caught:
        one_of("arch", "x", ["cnn", "other"])
    assert caught.value.hint == "one of: cnn, other"
    between("dropout", 0.5, 0, 1)
    for wrong in (-1, 2, "0.5", True, float("nan")):
        with pytest.raises(AutotrainError, match=r"task.options.dropout: .* is not from 0 to 1"):
            between("dropout", wrong, 0, 1)
    with pytest.raises(AutotrainError, match=r"no data: the template needs a folder of cats"):
        needed(None, "a folder of cats")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_weights_are_copied_but_for_a_head_of_another_shape(tmp_path, name, caplog):
    given_by, own = (
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, n)) for n in (9, 2)
    )
    save = save_file if name.endswith("safetensors") else torch.save
    save(given_by.state_dict(), tmp_path / name)
    with caplog.at_level(logging.WARNING):
        load_weights(own, read_weights(tmp_path / name), tmp_path / name)
    assert torch.equal(own[0].weight, given_by[0].weight)
    assert "start anew: 1.bias, 1.weight" in caplog.text


def test_weights_that_do_not_fit_hold_code_or_are_missing_are_refused(tmp_path):
    torch.save({"x": torch.zeros(2)}, tmp_path / "other.pt")
    other = read_weights(tmp_path / "other.pt")
    with pytest.raises(AutotrainError, match=r"other.pt: 0 of the model's 2 tensors"):
        load_weights(torch.nn.Linear(2, 2), other, tmp_path / "other.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"x" * 20)
    for name in ("code.pt", "torn.safetensors", "missing.pt"):
        with pytest.raises(AutotrainError, match=f"{name}: no weights"):
            read_weights(tmp_path / name)


def test_what_will_be_kept_is_told_after_a_few_readings():
    """Of those read from meanwhile, and each no more than it may keep."""
    before_all = reads()
    idle, one, small = (
        Loaded(range(50), lambda item: torch.ones(100), "clips", cache_bytes=most)
        for most in (1 << 20, 1 << 20, 4000)
    )
    idle[0]
    before = reads()
    assert keeping(before) == (0, 0)
    for index in (3, 7, 3):
        one[index], small[index]
    assert keeping(before) == (50 * 400 + 4000, (1 << 20) + 4000)
    assert keeping(before_all).all_read == 2 * 50 * 400 + 4000
    again = reads()
    one[3]  # is there already
    assert keeping(again) == (50 * 400, 1 << 20)
