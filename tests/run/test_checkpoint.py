"""Checkpoints on disk: whole or not there, found when torn, never pickled."""

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint, rewind, tensorfile
from autotrain.run.keeping.checkpoint import Snapshot, TornError
from autotrain.run.keeping.keeper import Keeper, pointed
from autotrain.run.keeping.tensors import Flat, flatten_model, restore_model


def snapshot(step, tensors=None):
    values = {"w": torch.arange(6.0).reshape(2, 3)} if tensors is None else tensors
    rest = {"state": {}, "param_groups": []}
    return Snapshot(step, Flat(values, {}, {}), Flat({}, {}, rest), {"step": step})


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).t())
        self.register_buffer("nothing", torch.empty(0, 3))
        self.register_buffer("brief", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("yes", torch.tensor(True))

    def get_extra_state(self):
        return {"seen": [1, 2]}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def test_a_model_comes_back_as_it_was(tmp_path):
    """Tied weights once, views, empty tensors, scalars, bfloat16, extra state."""
    one, two = Tied(), Tied()
    flat = flatten_model(one)
    assert flat.aliases == {"out.weight": "embed.weight"}
    optimizer = Flat({}, {}, {"state": {}, "param_groups": []})
    path = checkpoint.save(tmp_path, Snapshot(3, flat, optimizer, {}))
    restore_model(two, checkpoint.load(path).model)
    assert two.out.weight is two.embed.weight
    assert two.seen == [1, 2]
    for name, value in one.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, two.state_dict()[name])


@pytest.mark.parametrize("dtype", [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn,
])  # fmt: skip
def test_any_safetensors_reader_reads_the_file(tmp_path, dtype):
    """The hand-written writer keeps to the format, odd shapes beside wide items too."""
    tensors = {
        "odd": torch.ones(3).to(dtype),
        "empty": torch.empty(2, 0).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "byte": torch.ones(5, dtype=torch.uint8),
        "wide": torch.ones(7, dtype=torch.float64),
    }
    path = checkpoint.save(tmp_path, snapshot(1, tensors))
    found = load_file(path / "model.safetensors")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert raw(found[name]) == raw(value)


def raw(value):
    return value.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_a_dtype_without_a_name_is_one_clear_error(tmp_path):
    """And nothing is left behind."""
    with pytest.raises(AutotrainError, match="complex128"):
        checkpoint.save(tmp_path, snapshot(1, {"w": torch.ones(2, dtype=torch.complex128)}))
    assert list(checkpoint.checkpoints(tmp_path).iterdir()) == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return checkpoint.save(tmp_path_factory.mktemp("saved"), snapshot(1))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found(saved, data):
    """In the tensors, the state or the manifest; the message names the file."""
    name = data.draw(st.sampled_from([*checkpoint.CONTENT, checkpoint.MANIFEST]))
    raw = (saved / name).read_bytes()
    place = data.draw(st.integers(0, len(raw) - 1))
    flipped = raw[place] ^ data.draw(st.integers(1, 255))
    (saved / name).write_bytes(raw[:place] + bytes([flipped]) + raw[place + 1 :])
    try:
        with pytest.raises(TornError):
            checkpoint.verify(saved)
    finally:
        (saved / name).write_bytes(raw)


@pytest.mark.parametrize("name", [*checkpoint.CONTENT, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "longer"])
def test_damage_to_any_file_is_found_by_name(saved, tmp_path, name, damage):
    """Missing, cut short, emptied, grown."""
    copy = tmp_path / saved.name
    shutil.copytree(saved, copy)
    file = copy / name
    raw = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"cut": raw[:-1], "empty": b"", "longer": raw + b"x"}[damage])
    with pytest.raises(TornError, match=name):
        checkpoint.verify(copy)


def test_the_newest_that_verifies_is_used(tmp_path):
    """A torn one is passed over, and said so."""
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, snapshot(step))
    (checkpoint.folder(tmp_path, 3) / "model.safetensors").write_bytes(b"torn")
    path, torn = checkpoint.newest_good(tmp_path)
    assert path == checkpoint.folder(tmp_path, 2)
    assert ["step-00000003/model.safetensors" in str(error) for error in torn] == [True]


def test_a_weight_with_one_other_bit_is_not_resumed_from(tmp_path):
    """It can be read, and looks like any other: only the digest tells."""
    for step in (1, 2):
        checkpoint.save(tmp_path, snapshot(step))
    file = checkpoint.folder(tmp_path, 2) / "model.safetensors"
    raw = file.read_bytes()
    file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    path, found, torn = checkpoint.newest_whole(tmp_path, [2, 1])
    assert (path, found.step) == (checkpoint.folder(tmp_path, 1), 1)
    assert str(file) in torn[0].message


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_gets_its_name_before_it_is_on_the_disk(tmp_path, monkeypatch):
    """Every file is fsynced, the manifest last, then the folder, the rename, and the parent."""
    calls = []
    fsync, rename = os.fsync, os.rename

    def synced(handle):
        calls.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(source, target, **more):
        calls.append(f"rename to {Path(target).name}")
        rename(source, target, **more)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    checkpoint.save(tmp_path, snapshot(1))
    temporary = f".step-00000001.{os.getpid()}"
    assert calls == [
        tmp_path.parent.name,
        tmp_path.name,
        *checkpoint.CONTENT,
        checkpoint.MANIFEST,
        temporary,
        "rename to step-00000001",
        "checkpoints",
    ]


def test_a_save_that_reads_back_otherwise_is_not_kept(tmp_path, monkeypatch):
    """A disk that lies is found out before the checkpoint gets its name."""
    write = tensorfile.write

    def lying(path, chunks):
        said = write(path, chunks)
        path.write_bytes(path.read_bytes().replace(b"shape", b"shapf"))
        return said

    monkeypatch.setattr(tensorfile, "write", lying)
    with pytest.raises(TornError, match=r"model\.safetensors"):
        checkpoint.save(tmp_path, snapshot(1))
    assert list(checkpoint.checkpoints(tmp_path).iterdir()) == []


def test_a_torn_checkpoint_is_replaced_by_a_good_one(tmp_path):
    """A run that comes by the same step again saves it again."""
    path = checkpoint.save(tmp_path, snapshot(1))
    (path / "manifest.json").unlink()
    checkpoint.verify(checkpoint.save(tmp_path, snapshot(1)))


def test_half_written_folders_of_a_killed_run_are_swept(tmp_path):
    """Checkpoints and pointers stay."""
    keeper = Keeper(tmp_path, keep=2)
    list(keeper.save("step", 1, 1, lambda: snapshot(1)))
    place = checkpoint.checkpoints(tmp_path)
    (place / ".step-00000002.123").mkdir()
    (place / ".step-00000002.123" / "model.safetensors").write_bytes(b"half")
    (place / ".latest.abc").write_text("half")
    (place / ".step-00000003.gone").symlink_to(place / "step-00000001")
    (place / ".git").mkdir()
    (place / ".gitignore").write_text("*")
    checkpoint.sweep(tmp_path)
    held = [".git", ".gitignore", "latest", "step-00000001"]
    assert sorted(e.name for e in place.iterdir()) == held  # what is not ours, too
    checkpoint.verify(place / "step-00000001")


def test_checkpoints_that_are_a_link_are_refused(tmp_path):
    """A stranger's folder may hold one to anywhere."""
    victim = tmp_path / "victim"
    (victim / ".step-00000001.secret").mkdir(parents=True)
    checkpoint.checkpoints(tmp_path).symlink_to(victim)
    with pytest.raises(AutotrainError, match="is a link"):
        checkpoint.sweep(tmp_path)
    with pytest.raises(AutotrainError, match="is a link"):
        rewind.set_aside(tmp_path, [])
    assert [e.name for e in victim.iterdir()] == [".step-00000001.secret"]


def test_a_removed_folder_is_made_again(tmp_path):
    """By the next save, whoever removed it."""
    for background in (False, True):
        directory = tmp_path / str(background)
        with Keeper(directory, keep=2, background=background) as keeper:
            list(keeper.save("step", 1, 1, lambda: snapshot(1)))
            shutil.rmtree(directory)
            told = [*keeper.begin("step", 1, 2, lambda: snapshot(2)), *keeper.settle()]
        assert [event.name for event in told] == ["saved"], told
        checkpoint.verify(checkpoint.folder(directory, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are in /proc")
def test_what_is_set_aside_is_on_the_disk_before_it_is_gone_from_its_place(tmp_path, monkeypatch):
    """A power cut in between finds it in both, never in neither."""
    keeper, synced, fsync = Keeper(tmp_path, keep=9), [], os.fsync
    for step in (1, 2, 3):
        list(keeper.save("step", 1, step, lambda step=step: snapshot(step)))

    def seen(handle):
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", seen)
    rewind.go_back(tmp_path, "step-1")
    assert synced == ["aside-1", "checkpoints"]
    assert checkpoint.steps(tmp_path) == [1]


def test_a_kill_while_one_is_deleted_leaves_nothing_torn_by_name(tmp_path, monkeypatch):
    """The next run sweeps up what is left of it."""
    keeper = Keeper(tmp_path, keep=1)
    list(keeper.save("step", 1, 1, lambda: snapshot(1)))

    def killed(path, **_):
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        list(keeper.save("step", 1, 2, lambda: snapshot(2)))
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path) == [2]
    checkpoint.sweep(tmp_path)
    assert not list(checkpoint.checkpoints(tmp_path).glob(".*"))


def test_pruning_keeps_the_newest_and_what_is_pointed_at(tmp_path):
    """Best and interrupted outlive the count."""
    keeper = Keeper(tmp_path, keep=2)
    labels = ["step", "best", "interrupted", "step", "step", "step"]
    for step, label in enumerate(labels, 1):
        events = list(keeper.save(label, 1, step, lambda step=step: snapshot(step)))
        assert [event.name for event in events] == ["saved"]
    assert checkpoint.steps(tmp_path) == [6, 5, 3, 2]
    assert pointed(tmp_path) == {"latest": 6, "best": 2, "interrupted": 3}


def test_a_step_on_disk_is_not_written_again(tmp_path):
    """Only the pointers move."""
    keeper = Keeper(tmp_path, keep=2)
    list(keeper.save("epoch", 1, 1, lambda: snapshot(1)))
    written = checkpoint.folder(tmp_path, 1).stat().st_mtime_ns
    list(keeper.save("best", 1, 1, lambda: pytest.fail("taken again")))
    assert pointed(tmp_path) == {"latest": 1, "best": 1}
    assert checkpoint.folder(tmp_path, 1).stat().st_mtime_ns == written


def test_another_models_checkpoint_is_refused():
    """With torch's own list of what does not fit."""
    with pytest.raises(AutotrainError, match=r"another model.*"):
        restore_model(nn.Linear(2, 2), flatten_model(nn.Linear(3, 2)))


def test_extra_state_that_json_cannot_hold_is_refused():
    """No pickle, so it is said, and by name."""

    class Odd(nn.Linear):
        def get_extra_state(self):
            return {"odd": object()}

    with pytest.raises(AutotrainError, match="_extra_state: a object"):
        flatten_model(Odd(1, 1))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes in a folder")
@pytest.mark.parametrize("name", [*checkpoint.CONTENT, checkpoint.MANIFEST, "latest"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(saved, tmp_path, name):
    """Nobody writes into it."""
    place = checkpoint.checkpoints(tmp_path) / saved.name
    shutil.copytree(saved, place)
    path = place.parent / name if name == "latest" else place / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert pointed(tmp_path) == {}
    if name != "latest":
        with pytest.raises(TornError, match=rf"{name}: "):
            checkpoint.verify(place)


@pytest.mark.parametrize(
    "text", ["step-" + "9" * 5000, "step-\u0660" + "\u0661" * 7, "..", "\0", ""]
)
def test_a_pointer_that_names_no_checkpoint_points_nowhere(tmp_path, text):
    checkpoint.save(tmp_path, snapshot(1))
    (checkpoint.checkpoints(tmp_path) / "latest").write_text(text, encoding="utf-8")
    assert pointed(tmp_path) == {}


def lying(path, name, raw):
    """A checkpoint of which the manifest is right and a file is not what a run writes."""
    (path / name).write_bytes(raw)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    manifest["files"][name] = asdict(tensorfile.digest(path / name))
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest, indent=1))
    return path


@pytest.mark.parametrize(("change", "says"), [
    ({"step": 2}, "it is of step 2"), ({"step": -1}, "step: Input should be greater"),
    ({"schema": 2}, "schema: Input should be 1"), ({"run": []}, "run: Input should be a valid"),
    ({"model": {"aliases": {"v": "gone"}, "rest": {}}}, "model.aliases: no tensor 'gone'"),
    ({"model": {"aliases": {"v": 3}, "rest": {}}}, "model.aliases.v: Input should be a valid str"),
    ({"optimizer": {"param_groups": [{"params": "0"}]}}, "optimizer.param_groups.0.params: "),
    ({"step": 10**30}, "10000000000000000000...: a number"), ({"schema": ["x"] * 10**6}, "more"),
])  # fmt: skip
def test_a_state_that_no_run_writes_is_passed_over_by_its_file(tmp_path, change, says):
    """Though its manifest is right; the one before is used."""
    checkpoint.save(tmp_path, snapshot(0))
    path = checkpoint.save(tmp_path, snapshot(1))
    state = json.loads((path / "state.json").read_text()) | change
    lying(path, "state.json", json.dumps(state).encode())
    found, _, torn = checkpoint.newest_whole(tmp_path, checkpoint.steps(tmp_path))
    assert found == checkpoint.folder(tmp_path, 0)
    assert torn[0].message.startswith(f"{path / 'state.json'}: {says}")


def headed(length, header, body=b""):
    return length.to_bytes(8, "little") + header + body


NOTHING = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'


@pytest.mark.parametrize(("raw", "says"), [
    (headed(1 << 40, b"{}"), "larger than 16 MiB"),
    (headed(49 * 100_002, NOTHING * 100_002), "more than 100,000 tensors"),
    (headed(2, b"{]"), ""), (b"", ""),
    (headed(57, b'{"w":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'[:57], b"x"), ""),
    (headed(59, b'{"w":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}     ', b"x"), ""),
])  # fmt: skip
def test_tensors_are_counted_before_they_are_read(tmp_path, raw, says):
    """What is wrong with a header is told with the file's name."""
    path = lying(checkpoint.save(tmp_path, snapshot(1)), "model.safetensors", raw)
    checkpoint.verify(path)
    with pytest.raises(AutotrainError, match=rf"model\.safetensors: .*{says}"):
        checkpoint.load(path)
