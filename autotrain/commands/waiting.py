"""How OpenMP's threads wait for one another: awake on cores of their own, asleep beside others.

A thread that spins while the one it waits for has no core costs a time slice at every barrier:
beside one busy program a run is up to twenty times slower. Alone, threads that sleep make small
models up to four times slower (`benchmarks/waiting.py`). OpenMP reads its settings once, as torch
is loaded.
"""

from __future__ import annotations

import os
import sys
from time import sleep

from autotrain.sensors import Quiet

OURS = "OMP_WAIT_POLICY"
# Whoever set one of these has decided.
SETTINGS = (OURS, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
LOOK_SECONDS = 0.25


def settle(threads: int) -> None:
    """Have them sleep where other programs take the cores, and say so."""
    decided = any(name in os.environ for name in SETTINGS) or "torch" in sys.modules
    if threads < 2 or decided:
        return
    quiet = Quiet()
    sleep(LOOK_SECONDS)
    taken = quiet.disturbed()
    if taken is not None:
        os.environ[OURS] = "passive"
        print(
            f"other programs take {taken:.0%} of the cores: the run's {threads} threads sleep "
            f"while they wait for one another ({OURS}=passive)",
            file=sys.stderr,
        )
