"""Narrow machines made for real: few files, little memory, full disks, odd variables."""

import io
import os
import re
import struct
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from narrow import can_unshare

from autotrain.doctor import checks, table
from autotrain.doctor.checks import Finding
from autotrain.doctor.result import ok, warn
from autotrain.doctor.scene import Scene

from .house import Answers, doctor, environment, examined, fake_torch

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
root = pytest.mark.root
unshare = pytest.mark.skipif(not can_unshare(), reason="needs unshare and root")
pytestmark = linux
V2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"


def test_few_files(tmp_path):
    narrow = {"limits": [["NOFILE", 64]]}
    found = examined(["limits", "open files"], where=tmp_path, narrow=narrow)["limits, open files"]
    assert found.status == "fail"
    assert "64 files at once" in found.detail
    assert found.mend.startswith("ulimit -n 4096")


def test_few_files_that_may_be_raised(tmp_path):
    before = ["sh", "-c", 'ulimit -S -n 200; exec "$0" "$@"']
    found = examined(["limits", "open files"], where=tmp_path, before=before)["limits, open files"]
    assert (found.status, found.mend) == ("warn", "ulimit -n 4096")


@root
@unshare
@pytest.mark.parametrize(("size", "status"), [("4m", "fail"), ("200m", "warn"), ("2g", "ok")])
def test_little_shared_memory(tmp_path, size, status):
    found = examined(["memory", "shared memory"], where=tmp_path, narrow={"shm": size})
    fault = found["memory, shared memory"]
    assert fault.status == status
    assert status == "ok" or "--shm-size=8g" in fault.mend


@root
def test_a_full_disk(tmp_path, small_disk):
    place = tmp_path / "full"
    place.mkdir()
    small_disk(place, "3m")
    subprocess.run(["sh", "-c", f'cat /dev/zero > "{place}/filler"'], check=False)
    names = [["disk", name] for name in ("run folder", "room", "locks", "file system", "speed")]
    found = examined(*names, where=place)
    assert found["disk, run folder"].status == "fail"
    assert "No space left" in found["disk, run folder"].detail
    assert found["disk, run folder"].mend.startswith(f"du -xh {place} | sort -h | tail")
    assert found["disk, room"].status == "fail"
    assert found["disk, speed"].status == "skip"
    assert "tmpfs: in memory" in found["disk, file system"].detail
    assert [*place.iterdir()] == [place / "filler"]


@root
@unshare
def test_a_disk_without_inodes(tmp_path):
    place = tmp_path / "few"
    place.mkdir()
    mount = (
        f'mount -t tmpfs -o size=8m,nr_inodes=8 none "{place}" && cd "{place}" && exec "$0" "$@"'
    )
    found = examined(["disk", "inodes"], where=place, before=["unshare", "-m", "sh", "-c", mount])
    assert found["disk, inodes"].status == "fail"
    assert "a run cannot begin" in found["disk, inodes"].detail


@root
@unshare
def test_a_folder_that_cannot_be_written(tmp_path):
    mount = (
        'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD" && cd . && exec "$0" "$@"'
    )
    found = examined(["disk", "run folder"], ["disk", "locks"], where=tmp_path,
                     before=["unshare", "-m", "sh", "-c", mount])  # fmt: skip
    assert found["disk, run folder"].status == "fail"
    assert "Read-only file system" in found["disk, run folder"].detail
    assert found["disk, locks"].status == "skip"


@pytest.mark.parametrize("place", ["/nowhere/at/all", "/proc"])
def test_a_place_for_temporary_files_that_is_none(tmp_path, place):
    found = examined(["disk", "temporary files"], where=tmp_path, variables={"TMPDIR": place})
    fault = found["disk, temporary files"]
    assert (fault.status, fault.mend) == ("warn", "export TMPDIR=/var/tmp")
    assert place in fault.detail


@root
@unshare
def test_no_place_for_temporary_files_at_all(tmp_path):
    """All of /tmp, /var/tmp and the folder itself are read-only."""
    only = "".join(
        f"mount --bind {p} {p} && mount -o remount,ro,bind {p} && "
        for p in ("/tmp", "/var/tmp", "/usr")
    )
    before = ["unshare", "-m", "sh", "-c", f'{only}cd /usr && exec "$0" "$@"']
    found = examined(["disk", "temporary files"], ["disk", "temporary room"], where="/usr",
                     variables={"TMPDIR": None}, before=before)  # fmt: skip
    assert found["disk, temporary files"].status == "fail"
    assert found["disk, temporary room"].status == "skip"


def test_a_temporary_folder_whose_path_is_too_long_for_sockets(tmp_path):
    place = tmp_path / ("long" * 20)
    place.mkdir()
    found = examined(["disk", "temporary files"], where=tmp_path, variables={"TMPDIR": str(place)})
    assert "too long for the names of sockets" in found["disk, temporary files"].detail


@pytest.mark.parametrize(
    ("name", "told", "status"),
    [
        ("OMP_NUM_THREADS", "all", "fail"),
        ("OMP_NUM_THREADS", "0", "fail"),
        ("OMP_NUM_THREADS", "", "fail"),
        ("OMP_NUM_THREADS", "4096", "warn"),
        ("MKL_NUM_THREADS", "-3", "fail"),
        ("OMP_NUM_THREADS", "4096,2", "warn"),
        ("OMP_THREAD_LIMIT", "4096", "ok"),
        ("OMP_NUM_THREADS", "1", "ok"),
        ("GOMP_CPU_AFFINITY", "0", "warn"),
        ("OMP_PROC_BIND", "close", "warn"),
        ("OMP_PROC_BIND", "false", "ok"),
    ],
)
def test_silly_numbers_of_threads(look, name, told, status):
    found = look("processor", "threads", environment={name: told})
    assert found.status == status
    assert status == "ok" or name in found.mend


@pytest.mark.parametrize(
    ("name", "told", "status"),
    [
        ("CUDA_LAUNCH_BLOCKING", "1", "warn"),
        ("CUDA_LAUNCH_BLOCKING", "0", "ok"),
        ("ATEN_CPU_CAPABILITY", "default", "warn"),
        ("ATEN_CPU_CAPABILITY", "avx2", "ok"),
        ("PYTHONMALLOC", "debug", "warn"),
    ],
)
def test_what_a_search_for_errors_left_behind(look, name, told, status):
    found = look("processor", "debugging variables", environment={name: told})
    assert (found.status, found.mend) == (status, f"unset {name}" if status == "warn" else "")


def test_a_quota_of_half_a_core(look, system):
    files = {"proc/self/cgroup": "0::/job\n", "proc/self/mountinfo": V2,
             "sys/fs/cgroup/job/cpu.max": "50000 100000\n",
             "sys/fs/cgroup/job/cpu.stat": "nr_periods 1000\nnr_throttled 900\n"}  # fmt: skip
    here = system(files)
    assert "a quota of 0.5 of a core" in look("processor", "cores", root=here).detail
    assert "held up in 90% of its time" in look("processor", "quota", root=here).detail


def test_a_quota_below_the_cores_that_are_seen(look, system, monkeypatch):
    monkeypatch.setattr("autotrain.probe.limits.affinity_cores", lambda: 64)
    files = {"proc/self/cgroup": "0::/job\n", "proc/self/mountinfo": V2,
             "sys/fs/cgroup/job/cpu.max": "350000 100000\n"}  # fmt: skip
    here = system(files)
    assert look("processor", "cores", root=here).mend == "export OMP_NUM_THREADS=3"
    told = {"OMP_NUM_THREADS": "3"}
    assert look("processor", "cores", root=here, environment=told).status == "ok"


def test_a_containers_little_memory(look, system):
    files = {"proc/self/cgroup": "0::/job\n", "proc/self/mountinfo": V2,
             "sys/fs/cgroup/job/memory.max": f"{512 << 20}\n",
             "sys/fs/cgroup/job/memory.current": f"{100 << 20}\n"}  # fmt: skip
    here = system(files)
    assert look("memory", "container's memory", root=here).status == "fail"
    assert look("memory", "RAM", root=here).status == "fail"
    assert look("memory", "container's memory", root=system({})).status in ("ok", "fail")


@root
def test_few_processes(tmp_path, group):
    """None more than this one: not even a thread can be started, and the doctor answers."""
    narrow = {"cgroups": [group("pids", "pids.max", 1)]}
    found = examined(["limits", "processes"], ["torch", "import torch"], ["environment", "python"],
                     where=tmp_path, narrow=narrow)  # fmt: skip
    assert found["limits, processes"].status == "fail"
    assert "--pids-limit" in found["limits, processes"].mend
    assert found["environment, python"].status == "ok"
    assert found["torch, import torch"].status == "fail"
    assert "no other process can be asked" in found["torch, import torch"].detail


def test_few_addresses(tmp_path):
    narrow = {"limits": [["AS", 3 << 30]]}
    found = examined(["memory", "addresses"], where=tmp_path, narrow=narrow)["memory, addresses"]
    assert (found.status, found.mend) == ("fail", "ulimit -v unlimited")


def test_short_files(tmp_path):
    narrow = {"limits": [["FSIZE", 1 << 16]]}
    found = examined(
        ["limits", "length of files"], ["disk", "run folder"], where=tmp_path, narrow=narrow
    )
    assert found["limits, length of files"].mend == "ulimit -f unlimited"
    assert found["disk, run folder"].status == "fail"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *((kind, "warn") for kind in ("nfs4", "wekafs", "lustre", "fuse", "fuse.sshfs", "fuse.ceph",
                                      "fuse.juicefs", "fuse.mount-s3", "fuse.blobfuse2",
                                      "fuse.of-tomorrow", "prl_fs")),
        *((kind, "ok") for kind in ("ext4", "xfs", "btrfs", "fuseblk", "fuse.mergerfs", "overlay")),
    ],
)  # fmt: skip
def test_a_disk_over_the_network(look, system, kind, status):
    here = system({"proc/self/mountinfo": f"36 22 0:40 / / rw - {kind} server:/home rw\n"})
    found = look("disk", "file system", root=here)
    assert (found.status, found.detail.startswith(kind)) == (status, True)
    assert ("over a network" in found.detail) == (status == "warn")


def test_a_battery_that_empties_and_a_clock_held_down(look, system):
    here = system({
        "sys/class/power_supply/BAT0/type": "Battery\n",
        "sys/class/power_supply/BAT0/status": "Discharging\n",
        "sys/class/power_supply/BAT0/capacity": "41\n",
        "sys/class/power_supply/AC/type": "Mains\n",
        "sys/class/power_supply/AC/online": "0\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "acpi-cpufreq\n",
        "proc/sys/vm/overcommit_memory": "2\n",
    })  # fmt: skip
    assert "41 % left" in look("processor", "battery", root=here).detail
    assert (
        look("processor", "governor", root=here).mend
        == "sudo cpupower frequency-set -g performance"
    )
    assert look("memory", "overcommit", root=here).mend == "sudo sysctl vm.overcommit_memory=0"


def test_a_driver_whose_powersave_is_no_brake(look, system):
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    here = system(
        {f"{folder}/scaling_governor": "powersave\n", f"{folder}/scaling_driver": "intel_pstate\n"}
    )
    assert look("processor", "governor", root=here).status == "ok"


def test_an_old_processor(look, system):
    here = system({"proc/cpuinfo": "model name : Xeon E5410\nflags : fpu sse4_1\n"})
    assert "no AVX2" in look("processor", "instructions", root=here).detail


def test_a_sound_library_that_does_not_load(site, tmp_path):
    (site / "soundfile.py").write_text("raise OSError('sndfile library not found')\n")
    names = [["codecs", "sound"], ["environment", "other libraries"], ["codecs", "images"]]
    found = examined(*names, where=tmp_path, site=site)
    assert "sndfile library not found" in found["codecs, sound"].detail
    assert found["codecs, sound"].mend.endswith("install --force-reinstall soundfile")
    assert "soundfile: OSError" in found["environment, other libraries"].detail
    assert found["codecs, images"].status == "ok"


def test_a_check_that_fails_or_hangs_takes_no_other_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.2)
    scene = Scene(tmp_path, asked=Answers())
    failed = checks.looked(lambda scene: 1 / 0, scene)
    hung = checks.looked(lambda scene: time.sleep(5), scene)
    assert (failed.status, hung.status) == ("warn", "fail")
    assert "ZeroDivisionError: division by zero" in failed.detail
    assert "a disk or a device does not answer" in hung.detail
    assert checks.looked(lambda scene: ok("fine"), scene) == ok("fine")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return doctor("--no-step", cwd=tmp_path_factory.mktemp("healthy"))


def test_a_healthy_machine_is_told_so(healthy):
    """What depends on where this runs (load, room, the shell) aside."""
    sure = [name for name in healthy.found if name.startswith(("torch,", "codecs,"))]
    bad = {
        n: healthy.found[n].detail for n in sure if healthy.found[n].status not in ("ok", "skip")
    }
    assert bad == {}
    assert len(healthy.found) >= 60
    assert healthy.code == (1 if healthy.said["counts"]["fail"] else 0)
    assert not any("this check failed" in each.detail for each in healthy.found.values())


def test_whatever_is_not_ok_says_what_mends_it(healthy):
    for name, each in healthy.found.items():
        assert each.detail, name
        assert bool(each.mend) == (each.status in ("warn", "fail")), name


def test_it_ends_by_naming_the_next_command(healthy):
    assert "next: autotrain" in healthy.err or "next: mend" in healthy.err


@pytest.mark.parametrize("broken", [["pydantic", "typer"], ["psutil", "numpy", "rich", "filelock"]])
def test_libraries_of_our_own_that_do_not_load(site, tmp_path, broken):
    """The doctor does without whatever it can, the command line's own library included."""
    fake_torch(site, "2.13.0+cpu")
    for name in broken:
        (site / f"{name}.py").write_text(f"raise ImportError('{name} was broken on purpose')\n")
    done = doctor("--no-step", cwd=tmp_path, site=site)
    assert done.code == 1
    others = done.found["environment, other libraries"]
    assert "was broken on purpose" in others.detail
    assert all(name in others.mend for name in broken)
    assert done.found["torch, torchaudio"].status == "fail"
    assert not any("this check failed" in each.detail for each in done.found.values())


def test_another_command_names_the_doctor_where_a_library_does_not_load(site, tmp_path):
    (site / "pydantic.py").write_text("raise ImportError('broken on purpose')\n")
    done = subprocess.run(
        [sys.executable, "-m", "autotrain", "plan", "x"], cwd=tmp_path, capture_output=True,
        text=True, check=False, env=environment(site=site),
    )  # fmt: skip
    assert done.returncode == 1
    said = "error: a library does not load: broken on purpose\n\nhint: autotrain doctor\n"
    assert done.stderr == said


@pytest.mark.slow
@root
@unshare
def test_the_whole_of_it_where_everything_is_wrong_at_once(tmp_path, site, group):
    """64 files, 4 MB of shared memory, a full disk, no temporary files: an answer, no traceback."""
    place = tmp_path / "full"
    place.mkdir()
    narrow = (
        "mount -t tmpfs -o size=4m none /dev/shm && "
        f'mount -t tmpfs -o size=2m none "{place}" && cd "{place}" && '
        "cat /dev/zero > filler 2>/dev/null; ulimit -n 64; "
        'exec "$0" "$@"'
    )
    done = doctor("--no-step", cwd=tmp_path, before=["unshare", "-m", "sh", "-c", narrow],
                  variables={"TMPDIR": "/nowhere", "OMP_NUM_THREADS": "many"})  # fmt: skip
    assert done.code == 1
    failed = {name for name, each in done.found.items() if each.status == "fail"}
    assert {
        "limits, open files", "memory, shared memory", "disk, run folder", "disk, room",
        "processor, threads",
    } <= failed  # fmt: skip
    assert not any("this check failed" in each.detail for each in done.found.values())


@pytest.mark.slow
def test_real_steps_come_out_right(tmp_path):
    done = doctor(cwd=tmp_path)
    for name in ("CPU in fp32", "CPU as planned"):
        assert done.found[f"step, {name}"].status == "ok", done.found[f"step, {name}"]


def test_all_words_for_a_person_go_where_they_should(tmp_path, site):
    """The table on stdout, the rest on stderr; no colours where nobody asked for them."""
    fake_torch(site, "2.13.0+cpu")
    done = subprocess.run(
        [sys.executable, "-m", "autotrain", "doctor", "--no-step"], cwd=tmp_path,
        capture_output=True, text=True, check=False, env=environment(site=site, NO_COLOR="1"),
    )  # fmt: skip
    assert "\x1b" not in done.stdout
    assert "what was found" in done.stdout
    assert "not for this machine, or not asked for: " in done.stdout
    mends = done.stdout.partition("\nfail: ")[2]
    assert "torchaudio, torchvision" in mends.splitlines()[0]  # one command mends them all
    assert mends.splitlines()[1].startswith("  ")
    assert " checks: " in done.stderr
    assert "what was found" not in done.stderr


def test_what_is_to_be_copied_is_a_command_alone():
    """zsh, a Mac's shell, hands `# ...` on to the command."""
    out = io.StringIO()
    table.show([Finding("disk", "room", warn("1 GiB free", "du -xh /x   # what takes most"))], out)
    assert out.getvalue().endswith("\nwarn: room\n  du -xh /x\n    what takes most\n")


@pytest.mark.parametrize("form", [(), ("--paste",)])
def test_an_output_that_lacks_a_folders_letters(tmp_path, site, form):
    """As on Windows, where what is piped is in cp1252."""
    fake_torch(site, "2.13.0+cpu")
    here = tmp_path / "ক্লিপ"
    here.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "autotrain", "doctor", "--no-step", *form], cwd=here,
        capture_output=True, check=False, env=environment(site=site, PYTHONIOENCODING="cp1252"),
    )  # fmt: skip
    said = done.stdout.decode("cp1252")
    assert done.returncode == 1, done.stderr
    assert b"a bug" not in done.stderr
    assert "import torch" in said
    assert form or "/?????" in said


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_its_terminal(tmp_path, site, columns):
    """In a real one: nothing is cut off, and each finding stays in its column."""
    import fcntl
    import pty
    import termios

    fake_torch(site, "2.13.0+cpu")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-m", "autotrain", "doctor", "--no-step"]
    none, variables = subprocess.DEVNULL, environment(site=site, COLUMNS=None)
    with subprocess.Popen(command, stdin=none, stdout=theirs, stderr=none, cwd=tmp_path,
                          env=variables):  # fmt: skip
        os.close(theirs)
        raw = b""
        with suppress(OSError):  # what Linux says where the other end is closed
            while more := os.read(ours, 1 << 16):
                raw += more
    os.close(ours)
    lines = re.sub(r"\x1b\[[\d;]*m", "", raw.decode()).replace("\r", "").split("\n")
    end = next(i for i, line in enumerate(lines) if line.startswith("not for this machine"))
    assert max(map(len, lines[:end])) <= columns
    head = next(line for line in lines if "what was found" in line)
    said = " ".join(line[head.index("what") :].strip() for line in lines[:end])
    assert "2.13.0+cpu, built for a CPU; autotrain is made for 2.11" in said
    assert "which torch built for a CPU does not bring: `import torchaudio` fails" in said
    assert "the process ended with a segmentation fault" in said
    assert max(len(line) for line in lines[end:] if not line.startswith("  ")) <= columns


def test_a_folder_that_was_removed_meanwhile(tmp_path, site):
    fake_torch(site, "2.13.0+cpu")
    gone = tmp_path / "gone"
    gone.mkdir()
    before = ["sh", "-c", 'rmdir "$PWD"; exec "$0" "$@"']
    done = doctor("--no-step", cwd=gone, site=site, before=before)
    assert done.code == 1
    assert "was removed" in done.found["disk, run folder"].detail
    assert not any("this check failed" in each.detail for each in done.found.values())
