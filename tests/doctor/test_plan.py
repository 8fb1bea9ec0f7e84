"""`--for plan.toml`: whether this machine has what a plan needs."""

import json
import shutil
import subprocess
import sys

import pytest
from run.plans import make_plan

from autotrain import planfile, trust
from autotrain.doctor.scene import Scene
from autotrain.task import file_sha256

from .house import TORCH, devices, doctor, examined, fake_torch

TASK = (
    "import json\nimport torch\n\ndef task(data):\n    raise AssertionError('the doctor ran it')\n"
)


@pytest.fixture
def planned(tmp_path):
    """`planned(loader={"workers": 4})`: a plan with a trusted task file beside it."""
    folder = tmp_path / "planned"
    folder.mkdir()

    def make(task=TASK, trusted=True, section=(), **sections):
        (folder / "task.py").write_text(task)
        plan = make_plan(**sections)
        said = {"template": None, "file": "task.py", "sha256": file_sha256(folder / "task.py")}
        plan = plan.model_copy(
            update={
                "task": plan.task.model_copy(update=said | dict(section)),
                "run": plan.run.model_copy(update={"directory": "runs/x"}),
            }
        )
        if trusted:
            trust.trust(folder / "task.py")
        planfile.save(plan, folder / "plan.toml")
        return folder / "plan.toml"

    return make


@pytest.fixture
def ask(look, planned):
    def call(name, *, answers=(), **sections):
        plan = planned(**sections)
        return look("plan", name, plan=str(plan), where=plan.parent / "runs/x", **dict(answers))

    return call


def test_a_plan_that_this_machine_carries_out(ask):
    names = ("code", "places", "device", "precision", "memory", "checkpoints", "imports")
    found = {name: ask(name, predicted=peak(1 << 20, 1 << 21)).status for name in names}
    assert found == dict.fromkeys(names, "ok")


def test_code_that_nobody_trusts_or_that_changed(ask, planned, look):
    found = ask("code", trusted=False)
    assert found.status == "fail"
    assert "--trust" in found.mend
    plan = planned()
    (plan.parent / "task.py").write_text(TASK + "# changed\n")
    found = look("plan", "code", plan=str(plan))
    assert "has changed since the plan was made" in found.detail


def test_a_place_that_nobody_named(look, planned, tmp_path):
    plan = planned()
    found = look("plan", "places", plan=str(plan), where=tmp_path / "elsewhere")
    assert found.status == "fail"
    assert "--trust" in found.mend


def test_data_that_is_not_there(ask):
    template = {"template": "image-classifier", "file": None, "data": "pictures"}
    found = ask("data", section=template)
    assert (found.status, "--refresh" in found.mend) == ("fail", True)
    assert ask("data", section={"data": "."}).status == "ok"
    assert ask("data", section={"data": "a word"}).status == "skip"


def test_a_template_that_this_autotrain_lacks(planned):
    plan = planned(section={"template": "of-tomorrow", "file": None})
    found = examined(["plan", "code"], ["plan", "imports"], where=plan.parent, plan=str(plan))
    for each in found.values():
        assert each.status == "fail"
        assert "no template 'of-tomorrow'" in each.detail
        assert "image-classifier" in each.mend


def test_a_device_that_is_not_here(ask):
    answers = {"torch": TORCH, "cuda": devices()}
    found = ask("device", device={"kind": "cuda"}, answers=answers)
    assert found.status == "fail"
    assert "cuda:0, and torch sees no such device" in found.detail
    assert "--refresh" in found.mend
    assert ask("device", device={"threads": 1000}).status == "warn"


def test_a_precision_that_the_device_lacks(ask):
    answers = {"torch": TORCH, "cuda": devices((7, 5))}
    bf16 = {"device": {"kind": "cuda"}, "precision": {"dtype": "bf16"}}
    assert ask("precision", answers=answers, **bf16).status == "warn"
    answers["cuda"] = devices((8, 9))
    assert ask("precision", answers=answers, **bf16).status == "ok"


def peak(low, high):
    return {"device_peak_bytes": {"low": low, "expected": low, "high": high}}


def test_memory_that_is_not_free(ask):
    assert ask("memory", predicted=peak(1 << 50, 1 << 51)).status == "fail"
    assert ask("memory", predicted=peak(1, 1 << 51)).status == "warn"
    answers = {"torch": TORCH, "cuda": devices((8, 0))}  # of 1 GiB
    on_gpu = {"device": {"kind": "cuda"}, "answers": answers}
    assert ask("memory", predicted=peak(2 << 30, 3 << 30), **on_gpu).status == "fail"


def test_several_processes_want_a_gpu_each(ask):
    batch = {"micro_batch": 2, "accum_steps": 1, "global_batch": 8, "world_size": 4}
    sections = {"device": {"kind": "cuda"}, "predicted": peak(1, 1 << 29), "batch": batch}
    answers = {"torch": TORCH, "cuda": devices((8, 9))}
    found = ask("device", answers=answers, **sections)
    assert (found.status, "1 of these are here" in found.detail) == ("warn", True)
    assert "--set batch.world_size=1 " in found.mend
    answers["cuda"] = devices(*[(8, 9)] * 4)
    assert ask("device", answers=answers, **sections).detail == "cuda:0 to cuda:3"
    assert ask("memory", answers=answers, **sections).status == "ok"
    answers["cuda"]["devices"][3]["free"] = 1 << 28
    assert ask("memory", answers=answers, **sections).status == "warn"


def test_processes_on_a_cpu_share_its_memory(ask):
    gib = 1 << 30
    several = {"micro_batch": 2, "accum_steps": 1, "global_batch": 800, "world_size": 400}
    found = {world: ask("memory", predicted=peak(1, gib), batch=batch).status
             for world, batch in ((1, {}), (400, several))}  # fmt: skip
    assert found == {1: "ok", 400: "warn"}


STAGES = """
[[stage]]
name = "a"

[[stage]]
name = "b"
[stage.precision]
dtype = "bf16"
"""


@pytest.mark.parametrize(
    ("capability", "status", "says"), [((7, 0), "warn", "stage b: bf16"), ((8, 0), "ok", "")]
)
def test_a_later_stages_precision(planned, look, capability, status, says):
    plan = planned(device={"kind": "cuda"})
    plan.write_text(plan.read_text() + STAGES)
    answers = {"torch": TORCH, "cuda": devices(capability)}
    found = look("plan", "precision", plan=str(plan), **answers)
    assert (found.status, says in found.detail) == (status, True)
    assert Scene(plan.parent, str(plan)).dtype("cuda") == "bf16"


@pytest.mark.parametrize(("name", "status"), [("gfx1030", "warn"), ("gfx1100", "ok")])
def test_a_precision_that_an_amd_gpu_lacks(ask, name, status):
    answers = {"torch": TORCH | {"cuda": None, "hip": "7.2"}, "cuda": devices((11, 0))}
    answers["cuda"]["devices"][0]["architecture"] = f"{name}:xnack-"
    bf16 = {"device": {"kind": "rocm"}, "precision": {"dtype": "bf16"}}
    assert ask("precision", answers=answers, **bf16).status == status


def test_a_disk_that_cannot_hold_the_checkpoints(ask):
    large = {"checkpoint_bytes": {"low": 1 << 60, "expected": 1 << 60, "high": 1 << 60}}
    found = ask("checkpoints", predicted=large)
    assert found.status == "fail"
    assert "--set checkpoint.keep=" in found.mend


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_few_files_for_many_workers(planned):
    plan = planned(loader={"workers": 40, "prefetch": 8})
    found = examined(["plan", "workers' files"], where=plan.parent, plan=str(plan),
                     narrow={"limits": [["NOFILE", 1024]]})["plan, workers' files"]  # fmt: skip
    assert found.status == "warn"
    assert "40 workers want about" in found.detail


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm")
def test_more_in_workers_hands_than_shared_memory_holds(ask):
    sections = {
        "loader": {"workers": 4, "prefetch": 2},
        "batch": {"micro_batch": 64, "accum_steps": 1, "global_batch": 64},
        "inputs": {"train_samples": 10, "data_bytes": 1 << 44},
    }
    found = ask("workers' memory", **sections)
    assert found.status == "warn"
    assert "through pipes" in found.detail


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ("import nothing_like_it\n", "nothing_like_it"),
        ("def task(data):\n    from cv99.sub import x\n", "cv99"),
        ("try:\n    import nothing_like_it\nexcept ImportError:\n    pass\n", ""),
        ("from . import beside\nimport os.path, json as j\n", ""),
        ("from task import x\n", ""),  # beside it
    ],
)
def test_packages_that_the_code_imports(ask, source, lacking):
    found = ask("imports", task=source)
    assert found.status == ("fail" if lacking else "ok"), found
    assert lacking in found.detail
    assert not lacking or found.mend.endswith(f"pip install {lacking}")


def test_code_that_is_no_python(ask):
    found = ask("imports", task="def task(:\n")
    assert (found.status, "py_compile" in found.mend) == ("fail", True)


def test_a_mirror_whose_package_is_missing(ask):
    found = ask("mirror", checkpoint={"mirror": "s3://bucket/x"})
    if found.status == "ok":
        pytest.skip("s3fs is here")
    assert found.mend.endswith("install s3fs")


def test_a_model_to_be_compiled_without_a_compiler(planned):
    plan = planned(model={"compile": True})
    found = examined(["plan", "compiler"], where=plan.parent, plan=str(plan),
                     variables={"PATH": "/nowhere", "CXX": None})["plan, compiler"]  # fmt: skip
    assert (found.status, found.detail) == ("fail", "no C++ compiler")
    assert shutil.which("g++") is None or examined(
        ["plan", "compiler"], where=plan.parent, plan=str(plan)
    )["plan, compiler"].status == "ok"  # fmt: skip


def test_versions_that_are_others(ask):
    found = ask("versions", inputs={"versions": {"torch": "2.10.0"}}, answers={"torch": TORCH})
    assert found.status == "warn"
    assert "torch 2.10.0, 2.11.0 now" in found.detail


def test_a_malformed_plan_is_wrong_usage(tmp_path):
    (tmp_path / "plan.toml").write_text("schema = 1\n[batch]\nmicro_batch = 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "autotrain", "doctor", "--for", "plan.toml", "--no-step"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "plan.toml: batch.micro_batch: 0 should be" in done.stderr
    assert done.stdout == ""


def test_the_whole_command_with_a_plan(planned, site):
    fake_torch(site, "2.13.0+cpu")
    plan = planned(task=TASK + "import nothing_like_it\n", trusted=False)
    done = doctor("--for", "plan.toml", "--no-step", cwd=plan.parent, site=site)
    assert done.code == 1
    assert done.found["plan, code"].status == "fail"
    assert "nothing_like_it" in done.found["plan, imports"].detail
    assert json.dumps(done.said)
