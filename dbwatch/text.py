"""Text from elsewhere made harmless, and figures made readable. Pure."""

from __future__ import annotations

import unicodedata
from datetime import timedelta

_HOSTILE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me"})
MOST_MARKS = 8
"""No script puts more combining marks on one letter."""
_REPLACED = {ord("\n"): "⏎", ord("\t"): "→", ord("\r"): "␍", 0x7F: "␡"}


def _visible(char: str) -> str:
    code = ord(char)
    if code in _REPLACED:
        return _REPLACED[code]
    if code < 0x20:
        return chr(0x2400 + code)
    return "�" if unicodedata.category(char) == "Cs" else "·"


def sanitize(foreign: str, limit: int = 20_000) -> str:
    """*foreign* with every character that could act on a terminal shown as a glyph instead.

    Unicode categories Cc, Cf, Cs, Zl and Zp (controls, bidi and zero-width formats, lone surrogates, line and
    paragraph separators) become one visible character each; of marks that pile up on a letter `MOST_MARKS` are left,
    for a terminal slows down with the square of them; text longer than *limit* characters is cut with `…`. Called
    once, where text enters from a server, a child process or a file; idempotent.
    """
    cut = foreign if len(foreign) <= limit else foreign[: limit - 1] + "…"
    if cut.isascii() and cut.isprintable():
        return cut
    kept: list[str] = []
    marks = 0
    for char in cut:
        category = unicodedata.category(char)
        marks = marks + 1 if category in _MARKS else 0
        if category in _HOSTILE:
            kept.append(_visible(char))
        elif marks <= MOST_MARKS:
            kept.append(char)
        elif marks == MOST_MARKS + 1:
            kept.append("·")
    return "".join(kept)


def one_line(foreign: str, limit: int = 20_000) -> str:
    """*foreign* sanitized, with each run of white space folded into one space: SQL for a table's cell."""
    return sanitize(" ".join(foreign[: 4 * limit].split()), limit)


def age(seconds: float | None) -> str:
    """A duration for a narrow column: `0.4 s`, `12 s`, `5 min`, `3.2 h`, `4.0 d`; empty for None."""
    if seconds is None:
        return ""
    s = max(0.0, seconds)
    if s < 9.95:
        return f"{s:.1f} s"
    if s < 100:
        return f"{s:.0f} s"
    if s < 6000:
        return f"{s / 60:.0f} min"
    return f"{s / 3600:.1f} h" if s < 48 * 3600 else f"{s / 86400:.1f} d"


def clock(seconds: float) -> str:
    """A duration as on a stop-watch: `0:38`, `12:41`, `1:02:03`."""
    total = int(max(0.0, seconds))
    hours, minutes, secs = total // 3600, total // 60 % 60, total % 60
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def count(number: float | None) -> str:
    """A number in at most five characters: `812`, `9.1k`, `61k`, `1.2M`; empty for None."""
    if number is None:
        return ""
    n = float(number)
    for unit in ("", "k", "M", "G", "T"):
        if abs(n) < 999.5 or unit == "T":
            if not unit:
                return f"{n:.0f}" if n == int(n) or abs(n) >= 99.5 else f"{n:.1f}"
            return f"{n:.1f}{unit}" if abs(n) < 9.95 else f"{n:.0f}{unit}"
        n /= 1000
    raise AssertionError("unreachable")


def size(octets: float | None) -> str:
    """Bytes in binary units: `812 B`, `9.1 MB`; empty for None. Units as in pg_size_pretty."""
    if octets is None:
        return ""
    n = float(octets)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(n) < 1023.5 or unit == "TB":
            return f"{n:.0f} {unit}" if unit == "B" or abs(n) >= 9.95 else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError("unreachable")


_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """The seconds in a duration such as `500ms`, `2s`, `60min`, `24h`, `14d`. Units as in PostgreSQL's settings.

    Raises ValueError with the accepted forms where *text* is none.
    """
    for unit in sorted(_SECONDS, key=len, reverse=True):
        number = text.strip().removesuffix(unit)
        if number != text.strip():
            try:
                return timedelta(seconds=float(number) * _SECONDS[unit]).total_seconds()
            except (ValueError, OverflowError):
                break
    raise ValueError(f"{text!r} is no duration: write 500ms, 2s, 60min, 24h or 14d")
