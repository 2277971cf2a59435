#!/usr/bin/env bash
# msgspec 0.23.0, CPython 3.11: a dataclass that msgspec has read is written back without the fields
# that the document left to their defaults, although it equals one that Python built.
#
# Behaviour: for a plain dataclass with a default, `msgspec.convert({"a": 5}, Plain)` gives an
# instance that equals `Plain(5)` and that `dataclasses.asdict` shows with all its fields. But the
# default stays an attribute of the class and is not in the instance's `__dict__`, which is what
# `to_builtins` and `json.encode` write. So two equal objects have different JSON, and a document
# that is read and written again has fewer keys than one that is written first. With `slots=True`
# both are written whole, and so is a copy by `dataclasses.replace`. No `omit_defaults` is set, an
# option that dataclasses do not have. A digest or a test of keys over such JSON depends on where the
# object came from. What helps: `dataclasses.asdict` for writing, or `slots=True`.
#
# Output seen:
#   Plain built {'a': 5, 'b': 1} read {'a': 5} equal True asdict {'a': 5, 'b': 1} replaced {'a': 5, 'b': 1}
#   Slots built {'a': 5, 'b': 1} read {'a': 5, 'b': 1} equal True asdict {'a': 5, 'b': 1} replaced {'a': 5, 'b': 1}
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet msgspec==0.23.0
cat > "$work/check.py" << 'PY'
from dataclasses import asdict, dataclass, replace

import msgspec


@dataclass(frozen=True)
class Plain:
    a: int
    b: int = 1


@dataclass(frozen=True, slots=True)
class Slots:
    a: int
    b: int = 1


for kind in (Plain, Slots):
    built, read = kind(5), msgspec.convert({"a": 5}, kind)
    print(
        kind.__name__,
        *("built", msgspec.to_builtins(built), "read", msgspec.to_builtins(read)),
        *("equal", built == read, "asdict", asdict(read)),
        *("replaced", msgspec.to_builtins(replace(read))),
    )
PY
cat > "$work/expected" << 'TXT'
Plain built {'a': 5, 'b': 1} read {'a': 5} equal True asdict {'a': 5, 'b': 1} replaced {'a': 5, 'b': 1}
Slots built {'a': 5, 'b': 1} read {'a': 5, 'b': 1} equal True asdict {'a': 5, 'b': 1} replaced {'a': 5, 'b': 1}
TXT
"$work/venv/bin/python" "$work/check.py" | tee "$work/seen"
diff "$work/expected" "$work/seen"
