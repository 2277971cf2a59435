"""How much of an exhaustive test runs by default; with ``--deep``, all of it does."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest


def one_in(every: int) -> pytest.MarkDecorator:
    """Parametrize a test by ``every``: one case in so many by default, and all with ``--deep``."""
    sample = pytest.param(every, id=f"one in {every}")
    return pytest.mark.parametrize(
        "every", [sample, pytest.param(1, id="all", marks=pytest.mark.deep)]
    )


def thin(
    items: Sequence[Any], every: int, kind: Callable[[Any], Hashable] = lambda _: None
) -> list[Any]:
    """Keep one item in so many, and in any case the last one and the first of each kind."""
    firsts: dict[Hashable, int] = {}
    for place, item in enumerate(items):
        firsts.setdefault(kind(item), place)
    kept = {*range(0, len(items), every), *firsts.values(), len(items) - 1}
    return [items[place] for place in sorted(kept) if place >= 0]
