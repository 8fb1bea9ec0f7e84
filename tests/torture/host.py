"""The command line on what strangers made, in a process that forks one for each trial.

Lines of JSON on stdin say what to type and where, lines of JSON on stdout what became of it. All
that a sound run loads is loaded once, so that a trial takes a fraction of a second, and what a
trial loads besides is told.
"""

import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
import torch._dynamo  # every optimizer loads it

from autotrain.__main__ import main as command_line
from autotrain.report import figures

HANGS_AFTER = 60.0
# What changes something on a disk, and which of its arguments are paths.
CHANGES = {
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,),
    "os.symlink": (1,), "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,),
    "shutil.rmtree": (0,), "shutil.move": (0, 1), "sqlite3.connect": (0,),
}  # fmt: skip
# What leads out of the process.
LEAVES = (
    "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec",
    "os.posix_spawn", "os.spawn", "pty.spawn", "webbrowser.open", "pickle.find_class",
)  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(inside, strays, forks):
    """From here on, note what is written elsewhere than `inside`, and what leaves the process.

    In `forks`: an entry for each process it starts by fork.
    """
    own = os.getpid()
    roots = (*(os.path.realpath(place) + os.sep for place in inside), f"/dev/shm/pym-{own}-")

    def stray(event, said):
        if [event, said] not in strays:
            strays.append([event, said])

    def note(event, path):
        if isinstance(path, int) or path is None or os.getpid() != own:
            return
        where = os.path.realpath(os.fsdecode(path))
        if where != os.devnull and not f"{where}{os.sep}".startswith(roots):
            stray(event, where)

    def see(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if str(path).endswith("/clear_refs"):  # a run would reset the peak that is asked for
                raise PermissionError(1, "not in this test", path)
            named = isinstance(mode, str) and set(mode) & set("wax+")
            if named or (isinstance(flags, int) and flags & WRITES):
                note(event, path)
        elif event in CHANGES:
            for place in CHANGES[event]:
                note(event, arguments[place])
        elif event == "os.fork":
            forks.append(os.getpid() == own)
        elif event == "socket.connect" and isinstance(arguments[1], str):  # of its own workers
            note(event, arguments[1])
        elif event in LEAVES:
            stray(event, str(arguments)[:300])

    sys.addaudithook(see)


def child(asked, told, before):
    """Type it, and tell what it loaded and where it wrote."""
    folder, strays, forks, code = Path(asked["folder"]), [], [], "no exit"
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(asked[name], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), number)
    os.environ["AUTOTRAIN_HOME"] = asked["home"]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{asked['home']}/compiled"  # the compiler's own
    tempfile.tempdir = f"{asked['home']}/tmp"
    os.makedirs(tempfile.tempdir, exist_ok=True)
    os.chdir(folder)
    sys.argv = ["autotrain", *asked["type"]]
    watch((asked.get("inside", folder), asked["home"]), strays, forks)
    try:
        command_line()
    except SystemExit as end:
        code = end.code or 0
    loaded = sorted(set(sys.modules) - before)
    said = {"code": code, "loaded": loaded, "strays": strays[:40], "forks": sum(forks)}
    os.write(told, json.dumps(said).encode())
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def tried(asked, before):
    """What became of one trial."""
    read, told = os.pipe()
    begun, process = time.perf_counter(), os.fork()
    if not process:
        os.close(read)
        try:
            child(asked, told, before)
        finally:
            os._exit(99)
    os.close(told)
    raw, deadline = b"", time.monotonic() + HANGS_AFTER
    while select.select([read], [], [], max(deadline - time.monotonic(), 0))[0]:
        more = os.read(read, 1 << 16)
        raw += more
        if not more:
            break
    else:
        os.killpg(process, signal.SIGKILL)
    os.close(read)
    _, status, used = os.wait4(process, 0)
    return {
        "code": f"ended by {os.waitstatus_to_exitcode(status)}", "loaded": [], "strays": [],
        "forks": 0,
        **(json.loads(raw) if raw else {}),
        "cpu": used.ru_utime + used.ru_stime, "seconds": time.perf_counter() - begun,
        "bytes": used.ru_maxrss << 10,
        "out": Path(asked["out"]).read_text(errors="replace"),
        "err": Path(asked["err"]).read_text(errors="replace"),
    }  # fmt: skip


def main():
    torch.set_num_threads(1)
    figures.png = lambda *_: b"\x89PNG, nearly"  # most of a tiny run; tests/report draws it
    for line in sys.stdin:
        asked = json.loads(line)
        found = tried(asked, {*sys.modules})
        if asked.get("learns"):  # what it loaded, all later ones find loaded
            for name in found["loaded"]:
                with suppress(Exception):
                    importlib.import_module(name)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
