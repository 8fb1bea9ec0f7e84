"""Errors a person sees: one line with the values in it, and a hint that says what to do."""


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


class DoesNotFitError(AutotrainError):
    """No plan is possible within the budget, or memory ran out after healing."""

    exit_code = 4
