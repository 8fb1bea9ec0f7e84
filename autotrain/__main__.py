"""The one error guard: every way a command can end becomes a line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Any

from autotrain.errors import AutotrainError


def main() -> None:
    """Run the command line and exit: 0, 1, 2, 3 (a bug of ours), 4 (does not fit), 130."""
    verbose = "--verbose" in sys.argv[1:]
    try:
        from autotrain.cli import app

        code = app(standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error, and nothing to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = _say("stopped at once", 130)
    except AutotrainError as error:
        code = _report(error, verbose)
    except Exception as error:
        code = _usage(error) if hasattr(error, "format_message") else _bug(verbose)
    sys.exit(code if isinstance(code, int) else 0)


def _say(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _report(error: AutotrainError, verbose: bool) -> int:
    for line in error.message.splitlines():
        _say(line, 0)
    if error.hint:
        print(f"\nhint: {error.hint}", file=sys.stderr)
    if verbose:
        import traceback

        traceback.print_exc()
    return error.exit_code


def _usage(error: Any) -> int:
    """Wrong usage, as Typer's parser found it."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "autotrain"
    message = error.format_message()
    _say(message[:1].lower() + message[1:].rstrip("."), 0)
    print(f"\nhint: {command} --help", file=sys.stderr)
    return 2


def _bug(verbose: bool) -> int:
    """A bug of ours: the traceback goes to a file, its path to the person."""
    import time
    import traceback

    from autotrain.files import cache_directory

    text = traceback.format_exc()
    last = traceback.format_exception_only(sys.exception())[0].strip().splitlines()[0]
    try:
        folder = cache_directory() / "crashes"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        path.write_text(f"{' '.join(sys.argv)}\n\n{text}")
        where = f"the traceback is in {path}"
    except OSError:
        where = "run again with --verbose to see the traceback"
    _say(f"a bug in autotrain: {last}", 3)
    print(f"\nhint: {where}; please report it", file=sys.stderr)
    if verbose:
        print(text, file=sys.stderr)
    return 3


if __name__ == "__main__":
    main()
