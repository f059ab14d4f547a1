"""Durations as Spring reads them: `500ms`, `5s`, `PT1M30S`, or a bare number."""

import re

_SIMPLE = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h|d)?", re.IGNORECASE)
_ISO = re.compile(
    r"([+-]?)P(?:([+-]?\d+)D)?(?:T(?:([+-]?\d+)H)?(?:([+-]?\d+)M)?(?:([+-]?\d+(?:[.,]\d+)?)S)?)?", re.IGNORECASE
)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ISO_UNITS = (86400.0, 3600.0, 60.0, 1.0)


def seconds(value: object, *, plain: str = "ms") -> float:
    """Return a duration in seconds: a bare number is in `plain` units. ValueError, with what is allowed, otherwise."""
    text = "" if isinstance(value, bool) else str(value).strip()
    if (found := _SIMPLE.fullmatch(text)) is not None:
        unit = (found[2] or plain).lower()
        return float(found[1]) / 1000 if unit == "ms" else float(found[1]) * _SECONDS[unit]
    iso = _ISO.fullmatch(text)
    if iso is None or not any(iso.groups()[1:]):
        raise ValueError(f"{value!r} must be a duration such as 500ms, 5s, PT1M30S or a number of milliseconds")
    parts = zip(iso.groups()[1:], _ISO_UNITS, strict=True)
    length = sum(float(part.replace(",", ".")) * unit for part, unit in parts if part)
    return -length if iso[1] == "-" else length


__all__ = ["seconds"]
