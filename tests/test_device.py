"""Process-wide settings of a run: memory that is freed, kernels that are kept, order of sums."""

import os
import subprocess
import sys

import pytest
import torch

from autotrain.device import kernels_kept, same_order

FAULTS = """
import resource, torch
from autotrain.malloc import keep_freed, give_back_at_once

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(24 << 20, dtype=torch.uint8)
        [torch.ones(6 << 20, dtype=torch.uint8) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{call}()
faults()
print(faults())
"""


def faults_after(call):
    code = FAULTS.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_that_is_freed_is_handed_out_again_without_a_page_fault():
    """As every step does: 72 MiB, 20 times; a page has 4 KiB."""
    assert faults_after("keep_freed") < 200


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_that_goes_back_at_once_has_to_be_had_anew():
    assert faults_after("give_back_at_once") > 20 * 48 * 256


KERNELS = """
import sys
import psutil, torch
from autotrain.device import kernels_kept

torch.manual_seed(0)
layer = torch.nn.LSTM(96, 96, 2, bidirectional=True)
with kernels_kept(int(sys.argv[1]) or None):
    for length in range(100, 140):
        layer(torch.randn(length, 4, 96))[0].sum().backward()
print(psutil.Process().memory_info().rss >> 20)
"""


def resident_after(kept, **environment):
    done = subprocess.run(
        [sys.executable, "-c", KERNELS, str(kept)], capture_output=True, text=True, check=True,
        env=os.environ | environment,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="oneDNN's kernels")
def test_kernels_of_lengths_that_do_not_come_again_are_not_kept():
    """A recurrent layer's, of 40 lengths; who has set the library's own variable has decided."""
    few = min(resident_after(32) for _ in range(2))
    # What malloc leaves resident besides differs by tens of MiB from process to process.
    assert any(resident_after(0) > few + 60 for _ in range(4))
    own = {"DNNL_PRIMITIVE_CACHE_CAPACITY": "1024"}
    assert any(resident_after(32, **own) > few + 60 for _ in range(4))


BESIDE = """
import sys
import psutil, torch
from autotrain.device import kernels_kept

torch.set_num_threads(1)
layers = torch.nn.Sequential(*[torch.nn.Linear(144, 144) for _ in range(12)])
with kernels_kept(24):
    for length in range(100, 160):
        with torch.autocast("cpu", torch.bfloat16):
            layers(torch.randn(4, length, 144)).sum().backward()
print(psutil.Process().memory_info().rss >> 20)
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="oneDNN's kernels")
@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="products in bf16 are another's"
)
def test_what_torch_keeps_beside_of_products_in_bf16_is_bounded_too():
    """60 lengths of twelve layers; who has set its variable has decided."""

    def resident(**more):
        done = subprocess.run(
            [sys.executable, "-c", BESIDE], capture_output=True, text=True, check=True,
            env=os.environ | more,
        )  # fmt: skip
        return int(done.stdout)

    few = min(resident() for _ in range(2))
    assert any(resident(LRU_CACHE_CAPACITY="1024") > few + 25 for _ in range(4))


def test_the_wish_is_gone_with_the_run_that_made_it(monkeypatch):
    name, beside = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(beside, raising=False)
    with kernels_kept(48):
        assert (os.environ[name], os.environ[beside]) == ("48", "48")
    assert not {name, beside} & {*os.environ}
    with kernels_kept(500):
        assert (os.environ[name], os.environ[beside]) == ("500", "64")
    monkeypatch.setenv(beside, "9")
    with kernels_kept(48):
        assert os.environ[beside] == "9"
    assert os.environ[beside] == "9"
    monkeypatch.setenv(name, "7")
    with kernels_kept(48):
        assert os.environ[name] == "7"
    assert os.environ[name] == "7"


def gathered_gradient():
    """Of 5,000 rows of 1,000, most of them taken more than once."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(1000, 16, generator=draws, requires_grad=True)
    index = torch.randint(0, 1000, (5000,), generator=draws)
    (rows[index] * torch.randn(5000, 16, generator=draws)).sum().backward()
    return rows.grad


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_sums_of_several_threads_come_in_one_order(two_threads):
    """Else 17 of 20 differ on two cores; fresh memory is not filled for it."""
    with same_order(torch.device("cpu")):
        first = gathered_gradient()
        assert all(torch.equal(gathered_gradient(), first) for _ in range(20))
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.get_deterministic_debug_mode() == 0
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_who_has_asked_torch_for_one_order_has_decided():
    torch.set_deterministic_debug_mode("error")
    try:
        with same_order(torch.device("cpu")):
            assert torch.get_deterministic_debug_mode() == 2
            assert torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.set_deterministic_debug_mode("default")
