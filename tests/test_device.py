"""Process-wide settings of a run: what malloc does with the memory of freed tensors."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from autotrain.device import keep_freed, give_back_at_once

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
