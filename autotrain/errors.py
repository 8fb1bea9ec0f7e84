"""Errors a person sees: one line with the values in it, and a hint that says what to do."""

from __future__ import annotations

# What the system's loader says of it.
_NO_ROOM = ("failed to map segment", "annot allocate memory", "cannot create shared object")


def one_line(text: str, most: int = 200) -> str:
    """What a stranger's file says, fit for a terminal: its first line, no control characters."""
    first = next(iter(text.splitlines()), "")[:most]
    return "".join(each if each.isprintable() else "?" for each in first).strip()


class AutotrainError(Exception):
    """The user's or the machine's error. `exit_code` is the process's exit status."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message


class UsageError(AutotrainError):
    """Wrong usage or a malformed plan. `faults` holds all of them, one line each."""

    exit_code = 2

    def __init__(self, *faults: str, hint: str = "") -> None:
        super().__init__("\n".join(faults), hint)
        self.faults = faults


def starved(error: BaseException) -> AutotrainError | None:
    """What to say where the system has no room for a library, or no thread; None: another fault."""
    said = str(error)
    if isinstance(error, ImportError) and any(words in said for words in _NO_ROOM):
        advice = "raise `ulimit -v`, or take it away: loading torch takes GBs of addresses, not RAM"
        return AutotrainError(f"no memory for a library: {said}", advice)
    if isinstance(error, RuntimeError) and said == "can't start new thread":
        advice = "raise `ulimit -u` (a container: --pids-limit), or end other programs"
        return AutotrainError("the system starts no more threads", advice)
    return None


class DoesNotFitError(AutotrainError):
    """No plan is possible within the budget, or memory ran out after healing."""

    exit_code = 4
