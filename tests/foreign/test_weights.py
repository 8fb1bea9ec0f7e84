"""Weights from files of others: what is read, what is refused, and that nothing in them runs."""

import builtins
import hashlib
import io
import json
import os
import pickle
import runpy
import socket
import subprocess
import tarfile
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.foreign import weights
from autotrain.foreign.unpickling import RefusedError, Wanted, convert


def converted(path):
    """What the child does, without its process; the tensors as the parent reads them."""
    into = path.with_name("converted.safetensors")
    convert(Wanted(file=str(path), into=str(into), bytes=path.stat().st_size, seconds=9))
    return weights.read(into).tensors


def saved(path, made, **how):
    torch.save(made, path, **how)
    return path


def refused(path):
    with pytest.raises(AutotrainError) as caught:
        weights.read(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


# --- what is read ---------------------------------------------------------------------------


def test_a_real_model_saved_today_and_years_ago_is_read_to_the_bit(tmp_path):
    from torchvision.models import resnet18

    state = resnet18(weights=None).state_dict()
    new, old = tmp_path / "new.pt", tmp_path / "old.pt"
    torch.save(state, new)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    found = weights.read(new)
    assert found.sha256 == hashlib.sha256(new.read_bytes()).hexdigest()
    for tensors in (found.tensors, converted(old)):
        assert set(tensors) == set(state)
        assert all(torch.equal(tensors[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}},
        lambda state: {"model": state, "args": None},
        lambda state: {"epoch": torch.tensor(3), "model_state_dict": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {**state, "steps": 7, "note": "of a friend"},
    ],
)
def test_the_shapes_that_people_save_are_known(tmp_path, wrap):
    state = nn.Linear(3, 2).state_dict()
    found = converted(saved(tmp_path / "w.pt", wrap(state)))
    assert set(found) == {"weight", "bias"}
    assert torch.equal(found["weight"], state["weight"])


def test_views_transposes_ties_and_parameters_arrive_whole(tmp_path):
    table = torch.arange(24.0).reshape(4, 6)
    given = {"table": table, "tied": table, "turned": table.t(), "part": table[:, 1:3],
             "own": nn.Parameter(torch.ones(2)), "none": torch.empty(0, 3)}  # fmt: skip
    for how in ({}, {"_use_new_zipfile_serialization": False}):
        found = converted(saved(tmp_path / "w.pt", given, **how))
        assert set(found) == set(given)
        assert all(torch.equal(found[name], value) for name, value in given.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_other_types_are_kept_as_they_are(tmp_path, dtype):
    found = converted(saved(tmp_path / "w.pt", {"w": torch.ones(3).to(dtype)}))
    assert found["w"].dtype == dtype


# --- what would run -------------------------------------------------------------------------


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def traps(canary):
    touch = f"touch {canary}"
    return {
        "system": Call(os.system, touch),
        "eval": Call(eval, f"__import__('os').system('{touch}')"),
        "exec": Call(exec, f"open({str(canary)!r}, 'w')"),
        "open": Call(open, str(canary), "w"),
        "popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "import": Call(builtins.__import__, "antigravity"),
        "run": Call(runpy.run_path, str(canary)),
        "load": Call(torch.load, str(canary)),
        "jit": Call(torch.jit.load, str(canary)),
        "hub": Call(torch.hub.load_state_dict_from_url, "file://" + str(canary)),
        "compile": Call(torch.compile, str(canary)),
        "module": nn.Linear(2, 2),
        "socket": Call(socket.create_connection, ("127.0.0.1", 9)),
    }


@pytest.mark.parametrize("name", traps("x"))
def test_a_pickle_that_names_code_is_refused_and_runs_nothing(tmp_path, name):
    trap, canary = traps(tmp_path / "canary")[name], tmp_path / "canary"
    path, given = tmp_path / "w.pt", {"w": torch.ones(2)}
    for made in ({**given, "x": trap}, {"state_dict": {**given, "x": trap}}):
        for how in ({}, {"_use_new_zipfile_serialization": False}):
            with pytest.raises(RefusedError, match="it names code, "):
                converted(saved(path, made, **how))
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps(trap, protocol=protocol))
        with pytest.raises(RefusedError):
            converted(path)
    assert not canary.exists()


def test_the_child_refuses_it_too_and_says_so_in_one_line(tmp_path):
    canary = tmp_path / "canary"
    path = saved(tmp_path / "evil.pt", {"w": torch.ones(2), "x": traps(canary)["system"]})
    assert "it names code, " in refused(path)
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore")
def test_formats_that_are_code_are_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    raw = pickle.dumps(traps(tmp_path / "canary")["system"])
    with tarfile.open(tmp_path / "age.pt", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    for name in ("script.pt", "age.pt"):
        with pytest.raises(RefusedError, match="TorchScript, or of an age"):
            converted(tmp_path / name)
    assert not (tmp_path / "canary").exists()


# --- what would explode ---------------------------------------------------------------------


def sparse():
    return torch.sparse_coo_tensor(torch.zeros(2, 1).long(), torch.ones(1), (1 << 20, 1 << 20))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.zeros(1).expand(1 << 20, 1 << 20), "a bomb: its tensors claim 4 TiB"),
        (sparse, "no ordinary tensor"),
        (lambda: torch.empty(1 << 30, 1 << 10, device="meta"), "no ordinary tensor"),
        (lambda: torch.ones(2, dtype=torch.complex128), "is of torch.complex128"),
    ],
)
def test_a_tensor_that_is_more_than_its_bytes_is_refused(tmp_path, make, says):
    with pytest.raises(RefusedError, match=says):
        converted(saved(tmp_path / "w.pt", {"w": make()}))


@pytest.mark.parametrize("made", [[torch.ones(2)], {"a": {"b": torch.ones(2)}}, {}, {"lr": 1e-3}])
def test_what_holds_no_tensors_by_name_is_refused(tmp_path, made):
    with pytest.raises(RefusedError, match="no state dict"):
        converted(saved(tmp_path / "w.pt", made))


def zipped(path, pickled, *, data=b"", method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")
    return path


def test_a_zip_bomb_is_refused_before_anything_opens_it(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "ask", lambda *_, **__: pytest.fail("it was opened"))
    path = zipped(
        tmp_path / "w.pt", b"\x80\x02}.", data=bytes(50 << 20), method=zipfile.ZIP_DEFLATED
    )
    assert "a bomb: its entries claim 50 MiB" in refused(path)


def test_a_pickle_that_asks_for_memory_does_not_get_it(tmp_path):
    """`bytearray(2 GiB)` is something that torch lets a file of weights call."""
    code = b"\x80\x02cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR."
    assert "too much memory" in refused(zipped(tmp_path / "w.pt", code))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of POSIX")
def test_a_pickle_that_never_ends_is_ended(tmp_path, monkeypatch):
    """To hash a tuple of tuples, forty deep, takes 2**40 steps."""
    doubled = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(40))
    monkeypatch.setattr(weights, "CPU_SECONDS", 1.0)
    assert "used up the processor time" in refused(
        zipped(tmp_path / "w.pt", b"\x80\x02}()" + doubled + b"K\x01u.")
    )


# --- what is no such file -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_what_is_no_file_is_refused_and_holds_nothing_up(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    (tmp_path / f"nowhere{suffix}").symlink_to("gone")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / f"socket{suffix}"))
        says = {"pipe": "not a regular file", "device": "not a regular file", "folder": "directory",
                "socket": "not a regular file", "loop": "symbolic links",
                "nowhere": "No such file"}  # fmt: skip
        for name, problem in says.items():
            assert problem in refused(tmp_path / f"{name}{suffix}")


def test_a_file_larger_than_memory_is_refused_unread(tmp_path):
    with open(tmp_path / "w.pt", "wb") as file:
        file.truncate(1 << 42)
    assert "of RAM are needed" in refused(tmp_path / "w.pt")


def safe(path, header, body=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + body)
    return path


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"a": entry([1 << 40], 0, 4)}, bytes(4)),
        ({"a": entry([1 << 32, 1 << 32], 0, 0)}, b""),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
        ({"a": entry([1], 4, 8)}, bytes(8)),
        ({"a": entry([1], 0, 4)}, b""),
        ({"a": entry([1], 0, 4)}, bytes(400)),
        ({"a": entry([4], 0, 4, "F8_E8M0")}, bytes(4)),
        ({"a": entry([-1], 0, 4)}, bytes(4)),
        ({"a": 3}, b""),
        ({}, b""),
        (b"[" * 100_000, b""),
        (b'{"a":' * 50_000, b""),
        (b"\xff\xfe", b""),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, header, body):
    assert "no weights" in refused(safe(tmp_path / "w.safetensors", header, body))


@pytest.mark.parametrize("claimed", [1 << 63, 1 << 40, 100 << 20, 3])
def test_a_safetensors_header_is_as_long_as_the_file_allows(tmp_path, claimed):
    path = tmp_path / "w.safetensors"
    path.write_bytes(claimed.to_bytes(8, "little") + b"{}")
    assert "its header claims" in refused(path)


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("part", [0, 0.1, 0.6, 0.99])
def test_a_file_that_was_cut_short_is_refused(tmp_path, how, part):
    path = saved(tmp_path / "w.pt", nn.Linear(64, 64).state_dict(), **how)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(RefusedError):  # noqa: PT012
        with open(path, "rb") as file:
            weights._unpacked(file)
        converted(path)
    save_file({"w": torch.ones(64)}, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[: int(part * len(whole))])
    refused(tmp_path / "w.safetensors")


def test_another_kind_of_file_is_refused_by_its_name(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"x")
    assert "of none of the kinds .safetensors, .pt" in refused(tmp_path / "w.h5")
