"""Numbers as a reader wants them: percentages, counts, durations, tick labels, sizes."""

from __future__ import annotations

import math

NBSP = "\u00a0"
MINUS = "\u2212"


def percent(fraction: float, digits: int = 1) -> str:
    """Write 0.4123 as "41.2 %"."""
    return f"{signed(100 * fraction, digits)}{NBSP}%"


def signed(value: float, digits: int) -> str:
    """Write a number with a true minus sign, thousands separated; a rounded zero has no sign."""
    text = f"{abs(value):,.{digits}f}"
    negative = value < 0 and any(digit in text for digit in "123456789")
    return f"{MINUS}{text}" if negative else text


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write 1 as "1 photograph" and 1200 as "1,200 photographs"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def significant(value: float, digits: int = 3) -> str:
    """Write a number with the given significant digits, thousands separated: 0.0123, 4.56, 123, 12,300."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")
    magnitude = math.floor(math.log10(abs(rounded)))
    if magnitude < -4:
        return f"{rounded:.{digits - 1}e}".replace("-", MINUS)
    return signed(rounded, max(0, digits - 1 - magnitude))


def short(value: float) -> str:
    """Write a number with three significant digits, from 100,000 on in thousands or millions: 4.56, 12,300, 272M."""
    return significant(value) if abs(value) < 99_950 else tick(float(f"{value:.2e}"))


def times(ratio: float) -> str:
    """Write 1.872 as "1.87×"."""
    return f"{ratio:,.2f}\u00d7"


def duration(seconds: float, digits: int = 1) -> str:
    """Write a time as "9.4 s", "6 min 12 s" or "3 h 5 min"; ``digits`` are those after the point of seconds."""
    if seconds < 59.95:
        return f"{seconds:.{digits}f}{NBSP}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{NBSP}min{NBSP}{whole % 60}{NBSP}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}{NBSP}h{NBSP}{minutes % 60}{NBSP}min"


def tick(value: float) -> str:
    """Write a tick's value short: 0.05, 2, 1,500, 20k, 3M."""
    for limit, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (limit if letter == 'M' else 1e3):g}{letter}".replace("-", MINUS)
    return f"{value:,g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e\u2212")


def size(number: int) -> str:
    """Write a number of bytes as "812 B", "4.1 kB" or "6.6 MB" (powers of ten)."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= limit:
            return f"{number / limit:.1f}{NBSP}{unit}"
    return f"{number}{NBSP}B"


def listed(names: list[str]) -> str:
    """Write names as "a", "a and b" or "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
