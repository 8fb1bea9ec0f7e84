"""Base units inside (bytes, seconds, FLOP/s); the human form only at the edge, here."""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def bytes_text(count: float) -> str:
    """`1536` -> `1.5 KiB`; three significant digits, binary prefixes."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def seconds_text(seconds: float) -> str:
    """`0.0042` -> `4.2 ms`, `95` -> `1 min 35 s`, `7300` -> `2 h 2 min`."""
    if seconds < 0:
        return "-" + seconds_text(-seconds)
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def count_text(count: float) -> str:
    """`4700000` -> `4.7 M`; decimal prefixes, for parameters, samples and FLOPs."""
    value = float(count)
    for unit in ("", " k", " M", " G", " T"):
        if abs(value) < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} P"
