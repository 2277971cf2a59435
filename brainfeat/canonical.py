"""Canonical JSON, a strict reader of JSON, and records (dataclasses) of plain values."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from brainfeat.errors import BrainfeatError, CacheFormatError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_JSON_LIMIT = 64_000_000  # characters

Record = TypeVar("Record")


class _NotStrictError(ValueError):
    """JSON that Python's parser accepts and this one does not."""


def canonical_json(value: Any) -> str:
    r"""Return the canonical JSON of a value: sorted keys, no spaces, ASCII, no NaN.

    Examples
    --------
    >>> canonical_json({"b": [1, 0.5], "a": "é"})
    '{"a":"\\u00e9","b":[1,0.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_json(text: str, *, error: type[BrainfeatError] = CacheFormatError) -> Any:
    """Read JSON strictly.

    Parameters
    ----------
    text : str
    error : type of BrainfeatError
        The exception to raise.

    Raises
    ------
    BrainfeatError
        The text is not JSON, repeats a key, holds NaN or infinity, or is too long or too deeply
        nested.

    Examples
    --------
    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    brainfeat.errors.CacheFormatError: a JSON object repeats a key
    """
    if len(text) > _JSON_LIMIT:
        raise error(f"a JSON text of {len(text):,} characters; expected at most {_JSON_LIMIT:,}")
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except _NotStrictError as reason:
        raise error(str(reason)) from reason
    except (ValueError, RecursionError) as reason:
        raise error(f"not valid JSON: {reason}") from reason


def read_record(kind: type[Record], document: Any, *, error: type[BrainfeatError]) -> Record:
    """Convert a JSON value to a dataclass, and check the type of each field.

    Keys that are not fields of the dataclass are ignored, since a newer version may have written
    them.

    Parameters
    ----------
    kind : type
        A dataclass whose fields are plain values, tuples, mappings or other such dataclasses.
    document : object
        What :func:`parse_json` returned.
    error : type of BrainfeatError
        The exception to raise.

    Raises
    ------
    BrainfeatError
        A field is missing or has another type; the message names its place.
    """
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as reason:  # half of a pair of surrogates
        raise error(f"not a record of the type {kind.__name__}: {reason}") from reason


def write_record(record: "DataclassInstance") -> dict[str, Any]:
    """Convert a dataclass to dictionaries, lists and plain values, for `read_record`."""
    document: dict[str, Any] = _to_lists(asdict(record))
    return document


def _to_lists(value: Any) -> Any:
    """Replace tuples by lists, at any depth."""
    if isinstance(value, dict):
        return {key: _to_lists(entry) for key, entry in value.items()}
    return [_to_lists(entry) for entry in value] if isinstance(value, tuple | list) else value


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _NotStrictError("a JSON object repeats a key")
    return result


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _NotStrictError(f"JSON must not hold {digits[:20]}, which is not a finite number")
    return number


def _refuse_constant(name: str) -> Any:
    raise _NotStrictError(f"JSON must not hold {name}")
