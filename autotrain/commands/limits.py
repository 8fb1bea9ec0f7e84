"""`--within`, `--for` and `--price` as settings of the plan."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autotrain.errors import UsageError

_UNITS = {
    "w": 604_800, "week": 604_800, "weeks": 604_800, "d": 86_400, "day": 86_400, "days": 86_400,
    "h": 3_600, "hr": 3_600, "hrs": 3_600, "hour": 3_600, "hours": 3_600, "m": 60, "min": 60,
    "mins": 60, "minute": 60, "minutes": 60, "s": 1, "sec": 1, "secs": 1, "second": 1,
    "seconds": 1,
}  # fmt: skip
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PART = re.compile(rf"({_NUMBER})\s*([a-z]+)\s*")
_MONEY = re.compile(rf"(?:\$|usd\s*)?({_NUMBER})\s*(?:\$|usd|dollars?)?(?:\s*/\s*h(?:our)?)?")
_PRICE = re.compile(
    rf"(?P<before>[$€£]|[a-z]{{3}})?\s*(?P<amount>{_NUMBER})\s*(?P<after>[$€£]|[a-z]{{3}})?"
    r"(?:\s*/\s*h(?:our)?)?"
)
_SIGNS = {"usd": "$", "eur": "€", "gbp": "£"}
_KEYS = {
    "--within": "train.within_seconds",
    "--for": "train.spend_dollars",
    "--price": "train.price_per_hour",
}


def as_settings(
    settings: Sequence[str], within: str | None, spend: str | None, price: str | None
) -> tuple[str, ...]:
    """`--set` pairs, and those that the three flags stand for. Raises UsageError."""
    found = {
        "--within": None if within is None else seconds(within),
        "--for": None if spend is None else dollars(spend, "--for"),
        "--price": None if price is None else dollars(price, "--price", least=0.0),
    }
    said = {pair.partition("=")[0].strip() for pair in settings}
    asked = {flag: value for flag, value in found.items() if value is not None}
    twice = [f"{flag}, {_KEYS[flag]}: two ways to set the same" for flag in asked]
    twice = [line for line, flag in zip(twice, asked, strict=True) if _KEYS[flag] in said]
    if twice:
        raise UsageError(*twice, hint="say it once")
    return (*settings, *(f"{_KEYS[flag]}={value!r}" for flag, value in asked.items()))


def seconds(text: str) -> float:
    """`6h`, `90m`, `1d12h`, `45 min`, `3600s` in seconds. Raises UsageError."""
    rest, total, last = text.strip().lower(), 0.0, float("inf")
    while match := _PART.match(rest):
        unit = _UNITS.get(match[2], 0)
        if not 0 < unit < last:
            break
        total, last, rest = total + float(match[1]) * unit, unit, rest[match.end() :]
    if rest or not 0 < total < float("inf"):
        bare = " (of what?)" if re.fullmatch(_NUMBER, rest.strip()) and not total else ""
        raise UsageError(
            f"--within {text}: not a length of time{bare}",
            hint="such as 6h, 90m, 1d12h, 45min or 3600s",
        )
    return total


def dollars(text: str, flag: str, least: float | None = None) -> float:
    """`5usd`, `$5`, `5 dollars`, `5`: over 0, or from `least` on. Raises UsageError."""
    match = _MONEY.fullmatch(text.strip().lower())
    amount = float(match[1]) if match else -1.0
    enough = amount > 0 if least is None else amount >= least
    if not enough or amount == float("inf"):
        raise UsageError(
            f"{flag} {text}: not an amount of dollars",
            hint="such as 5usd or $0.35; in another currency give --for and --price both as "
            "plain numbers",
        )
    return amount


def price(text: str, flag: str) -> tuple[float, str]:
    """`0.35`, `0.35EUR/h`, `€0.35`: what an hour costs, and in what; dollars unless it says.

    Raises UsageError.
    """
    match = _PRICE.fullmatch(text.strip().lower())
    amount = float(match["amount"]) if match else float("inf")
    said = [word for word in (match["before"], match["after"]) if word] if match else []
    if amount == float("inf") or len(said) > 1:
        raise UsageError(
            f"{flag} {text}: not a price for an hour", hint="such as 0.35, or 0.35EUR/h"
        )
    word = said[0] if said else "$"
    return amount, _SIGNS.get(word, word if len(word) == 1 else f"{word.upper()} ")
