"""Several processes on this machine, for tests: forked, each one rank of a gloo group."""

import multiprocessing
import os
import socket
import traceback


def in_world(world, work, *args, seconds=60, apart=False, **named):
    """[work(ranks, *args, **named) of each rank]; an exception comes back as (class, text).

    `apart`: as if each were on a machine of its own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    started = [
        context.Process(target=_rank, args=(rank, world, port, results, work, args, named, apart))
        for rank in range(world)
    ]
    for process in started:
        process.start()
    try:
        found = dict(results.get(timeout=seconds) for _ in started)
    finally:
        for process in started:
            process.join(5)
            process.kill()
    return [found[rank] for rank in range(world)]


def _rank(rank, world, port, results, work, args, named, apart):
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": "0" if apart else str(rank),
        "LOCAL_WORLD_SIZE": "1" if apart else str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    from autotrain.run.processes import joining

    ranks = joining.join()
    try:
        made = work(ranks, *args, **named)
    except Exception as error:
        traceback.print_exc()
        made = type(error).__name__, str(error)
    results.put((rank, made))
    results.close()
    results.join_thread()
    ranks.farewell()
    joining.leave(ranks)
    os._exit(0)
