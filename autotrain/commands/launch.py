"""`autotrain run --nproc N`: torchrun's elastic agent starts the processes, watches and ends them.

Each is `autotrain run` of the same plan. Signals go on to them, once each: the agent itself would
kill after 30 seconds what is still saving a checkpoint.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil

from autotrain import planfile
from autotrain.commands import member, run
from autotrain.commands.places import Asked, Processes
from autotrain.errors import AutotrainError, UsageError
from autotrain.run.signals import outlive_line

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

# What a process of ours ends with.
EXIT_CODES = (1, 2, 3, 4, 130, 143)
CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}


def launch(asked: Asked, processes: Processes) -> int:
    """Start them, wait, and return the exit code of what ended the run."""
    outlive_line()
    check(processes)
    if not processes.several:
        return run.run(asked)
    run.check(asked)  # a fault of these is said once, and before anything starts
    planfile.load(asked.path)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    from autotrain.run.processes.stores import heed_libuv

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    heed_libuv()
    command = ["-P", "-m", "autotrain", *arguments(asked)]
    with signals_go_on() as handed:
        try:
            elastic_launch(_config(asked, processes), sys.executable)(*command)
        except ChildFailedError as error:
            return exit_code(error.failures, handed)
        except (RendezvousError, RuntimeError, ValueError, OSError) as error:
            why = str(error.__cause__ or error).partition("\n")[0]
            raise AutotrainError(
                f"the processes could not be started: {why}",
                "with --nnodes, every machine needs the same --rdzv-endpoint, reachable from all",
            ) from error
    return 0


def check(processes: Processes) -> None:
    """Raise UsageError for flags that do not go together."""
    faults = []
    if member.expected():
        faults.append("--nproc: torchrun started this process already, as one of several")
    nodes = processes.nodes or 1
    if nodes > 1 and processes.endpoint is None:
        faults.append(f"--nnodes {nodes}: --rdzv-endpoint HOST:PORT says where they meet")
    if nodes == 1 and (processes.endpoint is not None or processes.node_rank is not None):
        faults.append("--rdzv-endpoint and --node-rank are for --nnodes of 2 or more")
    if processes.node_rank is not None and processes.node_rank >= nodes > 1:
        faults.append(f"--node-rank {processes.node_rank}: of {nodes} machines, 0 to {nodes - 1}")
    if faults:
        raise UsageError(*faults, hint="autotrain run --help")


def arguments(asked: Asked) -> list[str]:
    """The command line of each process: all of this one's but how many there are."""
    flags = {"--resume": asked.resume, "--fresh": asked.fresh, "--trust": asked.trust,
             "--json": asked.as_json, "--verbose": "--verbose" in sys.argv}  # fmt: skip
    made = ["run", asked.name, *(flag for flag, on in flags.items() if on)]
    more = [
        ("--max-steps", asked.max_steps), ("--stage", asked.stage), ("--from", asked.back_to),
        ("--import-weights", asked.import_weights), *(("--track", name) for name in asked.track),
    ]  # fmt: skip
    said = [(flag, str(value)) for flag, value in more if value is not None]
    return [*made, *itertools.chain.from_iterable(said)]


def _config(asked: Asked, processes: Processes) -> LaunchConfig:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    nodes, rank = processes.nodes or 1, processes.node_rank
    return LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes.nproc or 1,
        run_id=uuid.uuid4().hex if nodes == 1 else f"autotrain-{asked.path.name}",
        rdzv_endpoint=processes.endpoint or "localhost:0",
        local_addr="localhost" if nodes == 1 else None,
        rdzv_backend="c10d" if rank is None else "static",
        rdzv_configs={} if rank is None else {"rank": rank},
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        signals_to_handle="SIGQUIT",
    )


@contextmanager
def signals_go_on() -> Iterator[list[int]]:
    """Signals are for the processes, which have sessions of their own.

    Before there are any, they are for this one. On Windows all share a console, which sends ^C to
    each itself; no other signal comes from outside there. Yields those that came to the processes.
    """
    sent: list[int] = []
    by_console = sys.platform == "win32"

    def hand_on(number: int, _frame: FrameType | None) -> None:
        children = psutil.Process().children()
        if not children and number in CODES:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        sent.append(number)
        for child in [] if by_console else children:
            with suppress(psutil.Error, OSError):
                child.send_signal(number)

    handed = [signal.SIGINT] if by_console else [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    before: dict[int, Any] = {number: signal.signal(number, hand_on) for number in handed}
    try:
        yield sent
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(failures: dict[int, ProcessFailure], handed: Sequence[int] = ()) -> int:
    """Of the process that failed first of its own accord; signals that were `handed` on end some
    before they can save anything.

    Raises AutotrainError for one that was killed: it could not say so itself.
    """
    in_turn = sorted(failures.items(), key=lambda item: item[1].timestamp)
    for rank, each in in_turn:
        if each.exitcode < 0 and -each.exitcode not in (signal.SIGTERM, signal.SIGINT):
            raise AutotrainError(
                f"process {rank} was killed by {_name(-each.exitcode)}, and the others ended",
                "SIGKILL often means that memory ran out; --resume goes on where the run stopped",
            )
    codes = [each.exitcode for _, each in in_turn if each.exitcode > 0]
    told = [code for code in codes if code in EXIT_CODES]
    return next(iter(told + [CODES[number] for number in handed if number in CODES]), 1)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
