"""Canonical JSON, which is the same text for equal values, and a strict reader."""

import json
import math
from collections.abc import Mapping
from typing import Any

from brainfeat.errors import CacheFormatError

_JSON_LIMIT = 64_000_000  # characters


def canonical_json(value: Any) -> str:
    r"""Return the canonical JSON of a value: sorted keys, no spaces, ASCII, no NaN.

    Examples
    --------
    >>> canonical_json({"b": [1, 0.5], "a": "é"})
    '{"a":"\\u00e9","b":[1,0.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_json(text: str) -> Any:
    """Read JSON strictly.

    Raises
    ------
    CacheFormatError
        The text is not JSON, repeats a key, holds NaN or infinity, or is too long or too deeply
        nested.

    Examples
    --------
    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    brainfeat.errors.CacheFormatError: a JSON object repeats a key
    """
    if len(text) > _JSON_LIMIT:
        raise CacheFormatError(
            f"a JSON text of {len(text):,} characters; expected at most {_JSON_LIMIT:,}"
        )
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, CacheFormatError):
            raise
        raise CacheFormatError(f"not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise CacheFormatError("a JSON object repeats a key")
    return result


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise CacheFormatError(f"JSON must not hold {digits[:20]}, which is not a finite number")
    return number


def _refuse_constant(name: str) -> Any:
    raise CacheFormatError(f"JSON must not hold {name}")
