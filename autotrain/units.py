"""Base units inside (bytes, seconds, FLOP/s); the human form only at the edge, here."""

import math
import re

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?)b", re.IGNORECASE)
SIZES = "a whole number of bytes, or text such as '700MiB' (x 1024 x 1024) or '32GB' (x 1e9)"


def bytes_text(count: float) -> str:
    """`1536` -> `1.5 KiB`; three significant digits, binary prefixes."""
    if abs(count) < 999.5:
        return f"{count:.0f} B"
    return _scaled(count, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def bytes_from(text: str) -> int | None:
    """`"700MiB"` -> 734003200, `"32 GB"` -> 32000000000; None where it is no size."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        return None
    base = 1024.0 if found[3] else 1000.0
    return round(float(found[1]) * math.pow(base, " kmgt".index(found[2].lower() or " ")))


def seconds_text(seconds: float) -> str:
    """`0.0042` -> `4.2 ms`, `95` -> `1 min 35 s`, `7300` -> `2 h 2 min`."""
    if seconds == 0 or not math.isfinite(seconds):
        return f"{seconds:.0f} s"
    if seconds < 0:
        return "-" + seconds_text(-seconds)
    if seconds < 0.9995e-3:
        return f"{_three(seconds * 1e6)} us"
    if seconds < 0.9995:
        return f"{_three(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{_three(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def count_text(count: float) -> str:
    """`4700000` -> `4.7 M`; decimal prefixes, for parameters, samples and FLOPs."""
    return _scaled(count, 1000, ("", " k", " M", " G", " T", " P"))


def mean_text(count: float) -> str:
    """`8.0` -> `8`, `3.26` -> `3.3`, `41.7` -> `42`: how many there are of something on average."""
    return f"{count:.0f}" if count == round(count) or count >= 10 else f"{count:.1f}"


def money_text(amount: float, currency: str = "$") -> str:
    """`0.0123` -> `$0.012`, `12.3` -> `$12.30`, `1234` -> `$1,234`, `1e-5` -> `under $0.0001`."""
    if amount >= 100:
        return f"{currency}{amount:,.0f}"
    if amount >= 1:
        return f"{currency}{amount:.2f}"
    if amount == 0:
        return f"{currency}0"
    return f"{currency}{amount:.2g}" if amount >= 1e-4 else f"under {currency}0.0001"


def _scaled(count: float, base: int, units: tuple[str, ...]) -> str:
    """`count` in the smallest unit in which it prints below 1000, else in the last one."""
    value, place = float(count), 0
    while abs(value) >= 999.5 and place < len(units) - 1:
        value, place = value / base, place + 1
    return _three(value) + units[place]


def _three(value: float) -> str:
    """Three significant digits; from 1000 on all of them, never an exponent."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
