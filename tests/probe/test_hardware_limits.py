import os

import pytest

from autotrain.probe import limits
from autotrain.probe.limits import Memory, cgroup_memory, cpu_quota, usable_cores, usable_memory

GIB = 1 << 30
V2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
DISK = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"


@pytest.fixture
def fake_root(tmp_path):
    def make(cgroup, mounts, contents):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        (tmp_path / "proc/self/mountinfo").write_text("\n".join([DISK, *mounts]) + "\n")
        for name, content in contents.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(limits, "affinity_cores", lambda: 64)


def test_a_version_2_quota_is_rounded_down(fake_root, many_cores):
    root = fake_root("0::/job\n", [V2], {"job/cpu.max": "350000 100000\n"})
    assert cpu_quota(root) == 3.5
    assert usable_cores(root) == 3


def test_a_quota_below_one_core_still_leaves_one(fake_root, many_cores):
    root = fake_root("0::/job\n", [V2], {"job/cpu.max": "20000 100000\n"})
    assert usable_cores(root) == 1


def test_the_tightest_quota_on_the_way_up_counts(fake_root, many_cores):
    files = {
        "a/cpu.max": "200000 100000\n",
        "a/b/cpu.max": "max 100000\n",
        "a/b/c/cpu.max": "800000 100000\n",
    }
    assert usable_cores(fake_root("0::/a/b/c\n", [V2], files)) == 2


def test_a_group_beside_ours_does_not_count(fake_root, many_cores):
    files = {"ours/cpu.max": "max 100000\n", "theirs/cpu.max": "100000 100000\n"}
    assert usable_cores(fake_root("0::/ours\n", [V2], files)) == 64


def test_max_means_no_limit(fake_root, many_cores):
    root = fake_root("0::/job\n", [V2], {"job/cpu.max": "max 100000\n"})
    assert cpu_quota(root) is None
    assert usable_cores(root) == 64


def test_a_version_1_quota_counts(fake_root, many_cores):
    files = {
        "cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    root = fake_root("4:memory:/\n1:cpu,cpuacct:/job\n0::/\n", [V1_CPU], files)
    assert usable_cores(root) == 4


def test_a_container_whose_host_path_is_hidden_uses_its_own_root(fake_root, many_cores):
    mount = "30 20 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw"
    root = fake_root("0::/docker/abc\n", [mount], {"cpu.max": "150000 100000\n"})
    assert cpu_quota(root) == 1.5


@pytest.mark.parametrize("path", ["/../other", "/elsewhere"])
def test_a_path_outside_the_mount_falls_back_to_its_root(fake_root, many_cores, path):
    files = {"cpu.max": "500000 100000\n", "../other/cpu.max": "100000 100000\n"}
    assert usable_cores(fake_root(f"0::{path}\n", [V2], files)) == 5


def test_affinity_tighter_than_the_quota_wins(fake_root, monkeypatch):
    monkeypatch.setattr(limits, "affinity_cores", lambda: 2)
    root = fake_root("0::/job\n", [V2], {"job/cpu.max": "600000 100000\n"})
    assert usable_cores(root) == 2


def test_without_proc_there_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path) is None
    assert usable_cores(tmp_path) >= 1


def test_affinity_is_what_the_scheduler_allows():
    if hasattr(os, "sched_getaffinity"):
        assert limits.affinity_cores() == len(os.sched_getaffinity(0))


def test_without_affinity_the_cpu_count_is_used(monkeypatch):
    import psutil

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    assert limits.affinity_cores() == os.cpu_count()


@pytest.mark.parametrize(
    "content", ["", "garbage", "100000", "max", "-1 100000", "0 0", "1 2 3", "100000 0"]
)
def test_an_odd_quota_file_limits_nothing(fake_root, content):
    assert cpu_quota(fake_root("0::/job\n", [V2], {"job/cpu.max": content})) is None


def test_version_2_memory_leaves_what_is_not_used_or_only_cached(fake_root):
    files = {
        "job/memory.max": f"{8 * GIB}\n",
        "job/memory.current": f"{3 * GIB}\n",
        "job/memory.stat": f"anon {2 * GIB}\ninactive_file {GIB}\nactive_file 0\n",
    }
    root = fake_root("0::/job\n", [V2], files)
    assert cgroup_memory(root) == [Memory(8 * GIB, 6 * GIB)]


def test_memory_high_counts_as_a_limit(fake_root):
    files = {
        "job/memory.max": "max\n",
        "job/memory.high": f"{2 * GIB}\n",
        "job/memory.current": "0\n",
    }
    assert cgroup_memory(fake_root("0::/job\n", [V2], files)) == [Memory(2 * GIB, 2 * GIB)]


def test_version_1_memory_counts_and_its_unlimited_value_does_not(fake_root):
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/job/memory.limit_in_bytes": f"{4 * GIB}\n",
        "memory/job/memory.usage_in_bytes": f"{GIB}\n",
        "memory/job/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB // 2}\n",
    }
    root = fake_root("4:memory:/job\n0::/\n", [V1_MEMORY, V2], files)
    assert cgroup_memory(root) == [Memory(4 * GIB, 4 * GIB - GIB // 2)]


def test_usable_memory_is_the_tightest_of_all(fake_root):
    files = {
        "a/memory.max": f"{2 * GIB}\n",
        "a/memory.current": f"{2 * GIB - 4096}\n",
        "a/b/memory.max": f"{GIB}\n",
        "a/b/memory.current": "0\n",
    }
    memory = usable_memory(fake_root("0::/a/b\n", [V2], files))
    assert memory == Memory(GIB, 4096)


def test_without_limits_memory_is_the_machines(tmp_path):
    import psutil

    memory = usable_memory(tmp_path)
    assert memory.total_bytes <= psutil.virtual_memory().total
    assert 0 <= memory.available_bytes <= memory.total_bytes


def test_an_address_space_limit_counts(monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4 * GIB, -1))
    memory = usable_memory(tmp_path)
    assert memory.total_bytes <= 4 * GIB
    assert memory.available_bytes < 4 * GIB
