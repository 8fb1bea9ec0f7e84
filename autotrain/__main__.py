"""The one error guard: every way a command can end becomes a line and an exit code."""

from __future__ import annotations

import atexit
import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

from autotrain.errors import AutotrainError, UsageError, starved

_OLDEST = (3, 11)
_HARMLESS = "\n\t\u200c\u200d"  # the last two join letters, in Bengali for one
_SPACE = "free space, or choose another disk"
_MACHINES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: _SPACE,
    errno.EIO: _SPACE,
    errno.EFBIG: "raise `ulimit -f`, or choose another disk",
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "raise fs.file-max, or end other programs",
    errno.EAGAIN: "raise `ulimit -u` (a container: --pids-limit), or end other programs",
    errno.ENOMEM: "free memory, or raise `ulimit -v` or the container's limit",
}


def main() -> None:
    """Run the command line and exit: 0, 1, 2, 3 (a bug of ours), 4 (does not fit), 130, 143."""
    if sys.version_info < _OLDEST:  # in which hardly a module of ours loads, the doctor's neither
        told = f"Python {sys.version.split()[0]} is too old: autotrain needs 3.11 or newer"
        _end(_say(told, hint="python3.11 -m venv .venv, and install autotrain there", code=1))
    _open_what_is_closed()
    _complain_into_the_void()
    _print_what_can_be_printed()
    given = sys.argv[1:]
    arguments = [a for a in given if a != "--verbose"]
    verbose = len(arguments) < len(given)
    try:
        code = _carry_out(given, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _nobody_reads()
    except SystemExit as end:  # Typer makes one of a broken pipe
        code = _nobody_reads() if isinstance(end.__context__, BrokenPipeError) else end.code
    except KeyboardInterrupt:
        code = _say("stopped at once", code=130)
    except AutotrainError as error:
        code = _report(error, verbose)
    except Exception as error:
        if (no_room := starved(error)) is not None:
            code = _report(no_room, verbose)
        elif isinstance(error, OSError) and error.errno in _MACHINES:
            code = _machine(error)
        elif isinstance(error, ImportError) and not (error.name or "").startswith("autotrain"):
            code = _say(f"a library does not load: {error}", hint="autotrain doctor", code=1)
        else:
            code = _usage(error) if hasattr(error, "format_message") else _bug(verbose)
    _end(code if isinstance(code, int) else 0)


def _carry_out(given: list[str], arguments: list[str]) -> Any:
    """The command's exit code; the doctor's too where what reads command lines does not load."""
    # The doctor tells it itself; of what is to be predicted, each is answered by itself.
    theirs = (["doctor"], ["completion"], ["predict"])
    if arguments[:1] not in theirs and "--help" not in arguments:
        _insist_on_utf8(arguments)
    try:
        from autotrain.cli import app, offer

        # A shell asks at every TAB, and to parse a command line Typer loads pydantic.
        if given[:1] == ["completion"] and given[2:3] == ["--"] and len(given) > 3:
            return offer(given[1], given[3:])
        return app(arguments, prog_name="autotrain", standalone_mode=False)
    except ImportError:
        if arguments[:1] != ["doctor"]:
            raise
    from autotrain.commands.doctor import plainly

    return plainly(arguments[1:])


def _insist_on_utf8(arguments: list[str]) -> None:
    """Raise AutotrainError for a name of other bytes: no plan, log or report could say it."""
    with suppress(FileNotFoundError, ValueError):  # no current folder; no path
        for name in map(os.path.realpath, (".", *arguments)):
            try:
                name.encode()
            except UnicodeEncodeError:
                shown = os.fsencode(name).decode(errors="backslashreplace")
                raise AutotrainError(f"{shown}: a name that is not UTF-8", "rename it") from None


def _end(code: int) -> NoReturn:
    """Exit; as one of several processes, without taking Python down first.

    Threads of gloo live on, and one that lets go of its last tensor meanwhile aborts the process.
    """
    member = sys.modules.get("autotrain.commands.member")
    if member is not None and member.expected():
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _open_what_is_closed() -> None:
    """A stream closed by the caller (`>&-`) is /dev/null: else a file of ours takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


class _Void(io.FileIO):
    """What it cannot write is lost: no message is worth a run."""

    def write(self, raw: Any) -> int:
        try:
            return super().write(raw) or 0
        except OSError:
            return len(raw)


def _complain_into_the_void() -> None:
    """A stderr on a full disk (`nohup autotrain run`) raises nothing; Windows has no such thing."""
    ours = sys.stderr
    if os.name != "posix" or ours is not sys.__stderr__ or not isinstance(ours, io.TextIOWrapper):
        return
    with suppress(OSError, ValueError):
        raw = io.BufferedWriter(_Void(ours.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(
            raw, encoding=ours.encoding, errors=ours.errors, line_buffering=True
        )


def _print_what_can_be_printed() -> None:
    """A character that stdout's encoding lacks (a name in Bengali, cp1252) is printed as `?`.

    What cannot be decoded of a file's name is printed as its bytes, where the system does so.
    """
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper):
        return
    narrow = out.errors == "surrogateescape" and out.encoding.lower() != "utf-8"
    if out.errors == "strict" or narrow:
        out.reconfigure(errors="replace")


def _nobody_reads() -> int:
    """The reader of our output went away (`| head`): not an error, and nothing to tell it."""
    _drop_output()
    return 0


def _drop_output() -> None:
    """What is still to be written to stdout cannot be: Python would try, and complain, at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _machine(error: OSError) -> int:
    """A disk that is full or broken, wherever it was met (`> FILE` too), or a limit."""
    _drop_output()
    hint = _MACHINES[error.errno or 0]
    where = error.filename or ("the output" if hint == _SPACE else "the system")
    return _say(f"{where}: {error.strerror}", hint=hint, code=1)


def _say(*faults: str, hint: str = "", code: int) -> int:
    """Each fault on a line of its own, then what to do; a stderr that is gone stops nothing."""
    text = "\n".join(f"error: {fault}" for fault in faults) + (f"\n\nhint: {hint}" if hint else "")
    # Names in it may be a stranger's, and to a terminal some characters are commands.
    text = "".join(c if c.isprintable() or c in _HARMLESS else " " for c in text)
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
    return code


def _report(error: AutotrainError, verbose: bool) -> int:
    faults = error.faults if isinstance(error, UsageError) else (error.message,)
    _say(*faults, hint=error.hint, code=error.exit_code)
    if verbose:
        import traceback

        traceback.print_exc()
    return error.exit_code


def _usage(error: Any) -> int:
    """Wrong usage, as Typer's parser found it."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "autotrain"
    message = error.format_message()
    return _say(message[:1].lower() + message[1:].rstrip("."), hint=f"{command} --help", code=2)


def _bug(verbose: bool) -> int:
    """A bug of ours: the traceback goes to a file, its path to the person."""
    import time
    import traceback

    from autotrain.files import cache_directory

    text = traceback.format_exc()
    last = traceback.format_exception_only(sys.exception())[-1].strip()
    try:
        folder = cache_directory() / "crashes"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        path.write_text(f"{' '.join(sys.argv)}\n\n{text}", encoding="utf-8", errors="replace")
        where = f"the traceback is in {path}"
    except OSError:
        where = "run again with --verbose to see the traceback"
    _say(f"a bug in autotrain: {last}", hint=f"{where}; please report it", code=3)
    if verbose:
        print(text, file=sys.stderr)
    return 3


if __name__ == "__main__":
    main()
