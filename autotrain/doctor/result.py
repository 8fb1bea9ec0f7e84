"""What a check comes to."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "warn", "fail", "skip"]


class Result(NamedTuple):
    """`mend`: the command that puts it right, or what to do where no command can.

    `private`: words of the detail that are nobody else's business, such as a program's name.
    """

    status: Status
    detail: str
    mend: str = ""
    private: tuple[str, ...] = ()


def ok(detail: str) -> Result:
    """It is as it should be."""
    return Result("ok", detail)


def skip(why: str) -> Result:
    """It does not apply here, or cannot be told."""
    return Result("skip", why)


def warn(detail: str, mend: str, private: tuple[str, ...] = ()) -> Result:
    """Training works, but slower, or at a risk."""
    return Result("warn", detail, mend, private)


def fail(detail: str, mend: str, private: tuple[str, ...] = ()) -> Result:
    """Training does not work, or gives wrong results."""
    return Result("fail", detail, mend, private)
