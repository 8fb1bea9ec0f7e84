"""Where processes meet, when torch is built without libuv: a TCPStore that does not ask for it.

torch documents USE_LIBUV=0, and its wheels for Windows have none; yet what starts and joins
processes (torchrun's agent, and `env://` within it) asks for it whatever that says, up to 2.11
(pytorch/pytorch#148283).
"""

from __future__ import annotations

import functools
import os
import sys

import torch.distributed as dist
import torch.distributed.rendezvous as joining
from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend, static_tcp_rendezvous

_ASK = (dist, joining, c10d_rendezvous_backend, static_tcp_rendezvous)


def heed_libuv() -> None:
    """From here on torch makes its stores as USE_LIBUV says; on Windows it is 0 by default."""
    if os.environ.get("USE_LIBUV", "0" if sys.platform == "win32" else "1") == "1":
        return
    plain = functools.partial(vars(dist)["TCPStore"], use_libuv=False)
    for module in _ASK:
        vars(module)["TCPStore"] = plain
