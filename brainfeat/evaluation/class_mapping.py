"""From the classes of a set of images to those of a head: by name, or by a given mapping."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BundleError, ParameterError
from brainfeat.text import fold_spelling, name_some

# Classes of the head by class of the set.
Classes = dict[str, tuple[str, ...]]
Given = str | Mapping[str, str | Sequence[str]]
ClassesArgument = Given | Sequence[Given] | None

# Characters with a meaning in a mapping that is written as a text.
_MARKS = (",", "+", "=", '"')


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassTask:
    """The classes that a head is asked to tell apart on a set, each one or several of its own.

    Attributes
    ----------
    names : tuple of str
        The k classes: those of the mapping, in its order, then the classes of the head that it does
        not name.
    members : ndarray of shape (m, k), bool
        Whether each of the m classes of the head belongs to each of these.
    mapping : dict of str to tuple of str, or None
        Classes of the head by class of the set; None where they have the same names.
    """

    names: tuple[str, ...]
    members: NDArray[np.bool_]
    mapping: Classes | None

    def add_up(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add the probabilities of the members of each class, (n, m) to (n, k)."""
        if self.mapping is None:
            return probabilities
        # A sum of probabilities may be above 1 by rounding.
        return np.minimum(probabilities @ self.members.astype(np.float64), 1.0)

    def unite(self, sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Unite prediction sets: a class is in one if a member of it is, (n, m) to (n, k)."""
        return sets if self.mapping is None else sets @ self.members

    def translate(self, labels: NDArray[np.intp]) -> NDArray[np.intp]:
        """Translate indices of classes of the head to indices of `names`."""
        translated: NDArray[np.intp] = self.members.argmax(axis=1)[labels]
        return translated

    def index(self, y: NDArray[np.integer], names: Sequence[str]) -> NDArray[np.intp]:
        """Translate indices of classes of the set to those of `names`."""
        place = {name: number for number, name in enumerate(self.names)}
        matched: NDArray[np.intp] = np.array([place.get(n, -1) for n in names], np.intp)[y]
        return matched


def parse_classes(text: str) -> Classes:
    """Read a mapping that is written as a text.

    Parameters
    ----------
    text : str
        Such as ``"yes=glioma+meningioma+pituitary,no=notumor"``.

    Returns
    -------
    dict of str to tuple of str
        Classes of the head by class of the set.

    Raises
    ------
    ParameterError
        A part is not ``SET=HEAD+HEAD``, or a class of the set is named twice.

    Examples
    --------
    >>> parse_classes("yes=glioma+pituitary, no=notumor")
    {'yes': ('glioma', 'pituitary'), 'no': ('notumor',)}
    """
    found: Classes = {}
    for part in text.split(","):
        name, equals, members = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise ParameterError(
                f"{part.strip()!r} is not a part of a mapping of classes; expected SET=HEAD+HEAD, "
                "such as yes=glioma+meningioma,no=notumor"
            )
        if name in found:
            raise ParameterError(f"the mapping names the class {name!r} of the set twice")
        found[name] = tuple(member.strip() for member in members.split("+") if member.strip())
    return found


def check_mappings(classes: ClassesArgument, head_names: Sequence[str]) -> list[Classes]:
    """Bring what was given as mappings into one form, and check it against the classes of a head.

    Parameters
    ----------
    classes : None, str, mapping of str to str or sequence of str, or sequence of these
        As in :func:`brainfeat.evaluate`.
    head_names : sequence of str
        The classes of the head.

    Returns
    -------
    list of dict of str to tuple of str

    Raises
    ------
    ParameterError
        A mapping names no class of the head, an unknown one, or one twice, or leaves one to itself
        whose name it gives to others.
    """
    if classes is None:
        return []
    given = [classes] if isinstance(classes, str | Mapping) else list(classes)
    return [_check_mapping(entry, head_names) for entry in given]


def _check_mapping(mapping: Given, head_names: Sequence[str]) -> Classes:
    if isinstance(mapping, str):
        found = parse_classes(mapping)
    else:
        found = {
            str(name): (members,) if isinstance(members, str) else tuple(map(str, members))
            for name, members in mapping.items()
        }
    known = ", ".join(map(repr, head_names))
    if not found:
        raise ParameterError(f"the mapping of classes is empty; name classes of the head, {known}")
    for name, members in found.items():
        if not members:
            raise ParameterError(
                f"the mapping names no class of the head for {name!r}; expected some of {known}"
            )
        if unknown := [member for member in members if member not in head_names]:
            raise ParameterError(
                f"the mapping names {unknown[0]!r} for {name!r}; expected classes of the head, "
                f"{known}"
            )
    named = Counter(member for members in found.values() for member in members)
    if twice := [member for member, number in named.items() if number > 1]:
        raise ParameterError(
            f"the mapping names {twice[0]!r} of the head twice; name each class of it once"
        )
    if left := [name for name in found if name in head_names and name not in named]:
        raise ParameterError(
            f"the mapping says what {left[0]!r} of the set is, and not what {left[0]!r} of the "
            "head is; name that class of the head as well"
        )
    return found


def choose_task(
    present: Sequence[str], head_names: Sequence[str], mappings: Sequence[Classes]
) -> tuple[ClassTask, int | None]:
    """Choose how a head is measured on a set: by the mapping that fits, or by names that agree.

    A mapping fits a set if it names at least one of its classes, and each other one is a class of
    the head that the mapping leaves to itself.

    Parameters
    ----------
    present : sequence of str
        Classes of which the set has images.
    head_names : sequence of str
    mappings : sequence of dict of str to tuple of str
        As :func:`check_mappings` returns them.

    Returns
    -------
    task : ClassTask
    place : int or None
        Of the mapping that was used.

    Raises
    ------
    BundleError
        A class is not among those of the head, and no mapping fits.
    ParameterError
        Several mappings fit.

    Examples
    --------
    >>> task, _ = choose_task(["yes", "no"], ["a", "b", "c"], [{"yes": ("a", "c"), "no": ("b",)}])
    >>> task.names, task.add_up(np.array([[0.25, 0.25, 0.5]])).tolist()
    (('yes', 'no'), [[0.75, 0.25]])
    """
    fitting = [
        place for place, mapping in enumerate(mappings) if _fits(mapping, present, head_names)
    ]
    if len(fitting) > 1:
        raise ParameterError(
            f"{len(fitting)} mappings fit the classes {_quote(present)}; expected one"
        )
    if fitting:
        return _make_task(mappings[fitting[0]], head_names), fitting[0]
    if unknown := [name for name in present if name not in head_names]:
        raise BundleError(_explain_unknown(unknown, head_names, mappings))
    same = ClassTask(
        names=tuple(head_names), members=np.eye(len(head_names), dtype=np.bool_), mapping=None
    )
    return same, None


def _fits(mapping: Classes, present: Sequence[str], head_names: Sequence[str]) -> bool:
    used = {member for members in mapping.values() for member in members}
    free = set(head_names) - used
    return any(name in mapping for name in present) and all(
        name in mapping or name in free for name in present
    )


def _make_task(mapping: Classes, head_names: Sequence[str]) -> ClassTask:
    used = {member for members in mapping.values() for member in members}
    parts = {**mapping, **{name: (name,) for name in head_names if name not in used}}
    if len(parts) < 2:
        [name] = parts
        raise ParameterError(
            f"the mapping makes one class, {name!r}, of all classes of the head; expected two or "
            "more"
        )
    return ClassTask(
        names=tuple(parts),
        members=np.array(
            [[member in members for members in parts.values()] for member in head_names]
        ),
        mapping=mapping,
    )


def require_used(mappings: Sequence[Classes], places: Collection[int | None]) -> None:
    """Refuse a mapping that fits no set.

    Parameters
    ----------
    mappings : sequence of dict of str to tuple of str
    places : collection of int or None
        Of the mappings that sets took.

    Raises
    ------
    ParameterError
        One was taken by none.
    """
    for place, mapping in enumerate(mappings):
        if place not in places:
            raise ParameterError(
                f"the mapping of the classes {_quote(list(mapping))} fits no images that were "
                "given; it must name classes that they have, and say what each of these is"
            )


def offer_spellings(unknown: Sequence[str], head_names: Sequence[str]) -> Classes:
    """Find classes of a head whose names differ only in case, ``_``, ``-`` and spaces.

    Parameters
    ----------
    unknown : sequence of str
        Classes of a set that the head does not have.
    head_names : sequence of str

    Returns
    -------
    dict of str to tuple of str
        A mapping of the classes that have just one such name.

    Examples
    --------
    >>> offer_spellings(["no_tumor", "yes"], ["glioma", "notumor"])
    {'no_tumor': ('notumor',)}
    """
    alike = {
        name: [known for known in head_names if fold_spelling(known) == fold_spelling(name)]
        for name in unknown
    }
    wanted = Counter(known[0] for known in alike.values() if len(known) == 1)
    return {
        name: (known[0],)
        for name, known in alike.items()
        if len(known) == 1 and wanted[known[0]] == 1
    }


def write_classes(mapping: Classes) -> str:
    """Write a mapping as :func:`parse_classes` reads it.

    Examples
    --------
    >>> write_classes({"yes": ("glioma", "pituitary"), "no": ("notumor",)})
    'yes=glioma+pituitary,no=notumor'
    """
    return ",".join(f"{name}={'+'.join(members)}" for name, members in mapping.items())


def _explain_unknown(
    unknown: Sequence[str], head_names: Sequence[str], mappings: Sequence[Classes]
) -> str:
    given = "; no mapping that was given fits them" if mappings else ""
    message = (
        f"the images have the class{'es' if len(unknown) > 1 else ''} {_quote(unknown)}; expected "
        f"one of the head's, {_quote(head_names)}{given}"
    )
    offered = offer_spellings(unknown, head_names)
    parts = {name: offered.get(name, ("CLASS", "CLASS")) for name in unknown}
    if any(
        mark in text for pair in parts.items() for text in (pair[0], *pair[1]) for mark in _MARKS
    ):
        return f"{message}; pass a mapping, or fit a head on a cache that has it"
    if len(offered) == len(unknown):
        return f'{message}; if they mean the same, pass classes="{write_classes(parts)}"'
    return (
        f'{message}; say what that means with classes="{write_classes(parts)}", or fit a head on a '
        "cache that has it"
    )


def is_coarse(mapping: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a mapping joins classes of the head, and not only renames them."""
    return any(len(members) > 1 for members in mapping.values())


def describe_mapping(mapping: Mapping[str, Sequence[str]]) -> str:
    """Say what the classes of a mapping are.

    Examples
    --------
    >>> describe_mapping({"yes": ("glioma", "meningioma", "pituitary"), "no": ("notumor",)})
    'yes is glioma, meningioma or pituitary; no is notumor'
    """
    parts = []
    for name, members in mapping.items():
        first = ", ".join(members[:-1])
        parts.append(f"{name} is {first} or {members[-1]}" if first else f"{name} is {members[-1]}")
    return "; ".join(parts)


def _quote(names: Sequence[str]) -> str:
    return name_some([repr(name) for name in names])
