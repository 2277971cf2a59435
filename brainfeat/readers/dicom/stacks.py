"""Which frames of which files are one volume; known before any pixel is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainfeat.readers.dicom.headers import Frame, Header, Value

# Two positions are the same where they differ by less, in mm; no slice is so thin.
_TOLERANCE = 0.01
# The slices of one acquisition are as far from each other, to this fraction.
_EVEN = 0.05
_FEWEST_JOINED = 3
# What parts frames whose positions are unknown.
_CERTAIN = ("complex component", "b-value", "echo time", "echo number", "time point")


class Stack(NamedTuple):
    """The files, or the frames of a file, that are one volume.

    Attributes
    ----------
    key : str
        Identifies the volume wherever its files are. Never shown.
    paths : tuple of Path
        Its files, copies of one instance among them. Never shown.
    frames : tuple of int or None
        Which frames of each file belong to it; None for all.
    first : Path
        The first of all files that it was parted from. Never shown.
    """

    key: str
    paths: tuple[Path, ...]
    frames: tuple[int, ...] | None
    first: Path


class Part(NamedTuple):
    """The frames of a volume, by their indices, and how they differ from those of other volumes."""

    label: tuple[tuple[str, Value], ...]
    frames: list[int]


class _Instance(NamedTuple):
    """The files of one instance: the first one, and its copies."""

    header: Header
    paths: list[Path]


def find_stacks(files: Iterable[tuple[Path, Header]]) -> list[Stack]:
    """Find the volumes among files.

    A file of several frames is at least one volume by itself, and so is a mosaic. Other files are
    one volume with those of their series that have the same size and orientation. Single slices
    that have a series each are joined where they share all that tells acquisitions apart and are
    evenly spaced. Where positions repeat, a volume is parted by :func:`part_frames`.

    Parameters
    ----------
    files : iterable of (Path, Header)
        Each file with what :func:`brainfeat.readers.dicom.headers.read_header` returned.

    Returns
    -------
    list of Stack
        In the order of their first files; those that were parted, by the values that part them.
    """
    instances: dict[tuple[str, str], _Instance] = {}
    for path, header in files:
        identity = header.series, header.instance or f"\0{path.absolute()}"
        instances.setdefault(identity, _Instance(header, [])).paths.append(path)
    groups: dict[str, list[_Instance]] = {}
    for instance in instances.values():
        groups.setdefault(_make_key(instance), []).append(instance)
    _spoil(groups)
    return [stack for key, members in _join(groups).items() for stack in _make_stacks(key, members)]


def part_frames(frames: Sequence[Frame]) -> list[Part]:
    """Part frames into volumes in which no position repeats.

    Frames of several stacks or orientations are several volumes. Otherwise, a trait parts frames
    only where positions repeat, and only if all parts have a position in common: a number that each
    slice or each package of slices has for itself breaks no volume.

    Parameters
    ----------
    frames : sequence of Frame

    Returns
    -------
    list of Part
        Sorted by the values of what parts them. Positions repeat in one that nothing parts.
    """
    parts = [Part((), list(range(len(frames))))]
    # A stack of one frame is no stack.
    if 2 * len({frame.stack for frame in frames}) <= len(frames):
        parts = _split(parts[0], "stack", lambda index: (frames[index].stack,))
    turned = [round_orientation(frame) for frame in frames]
    parts = [piece for part in parts for piece in _split(part, "orientation", turned.__getitem__)]
    traits = list(dict.fromkeys(trait for frame in frames for trait in frame.traits))
    return [piece for part in parts for piece in _part_by_traits(part, frames, traits)]


def find_places(frames: Sequence[Frame]) -> list[int]:
    """Find the places of the frames of a volume: equal ones where frames are at one position.

    Parameters
    ----------
    frames : sequence of Frame

    Returns
    -------
    list of int
        Ascending along the slice normal, or else with the numbers of the frames.
    """
    positions = [frame.position for frame in frames if frame.position is not None]
    if len(positions) < len(frames) or not frames:
        return [frame.number for frame in frames]
    order = np.argsort(positions, kind="stable")
    steps = np.diff(np.asarray(positions)[order]) > _TOLERANCE
    places = np.empty(len(frames), np.intp)
    places[order] = np.concatenate([[0], np.cumsum(steps)])
    return [int(place) for place in places]


def round_orientation(frame: Frame) -> tuple[float, ...]:
    """Round the orientation of a frame to two decimals, which are about half a degree."""
    return tuple(round(x, 2) + 0.0 for x in frame.orientation)


def _is_part(header: Header) -> bool:
    """Return whether a file can be one of several that form a volume."""
    return bool(header.series) and len(header.frames) == 1 and not header.is_mosaic


def _make_key(instance: _Instance) -> str:
    header = instance.header
    if _is_part(header):
        return repr((header.series, *header.shape, *round_orientation(header.frames[0])))
    return repr((header.series, header.instance or instance.paths[0].absolute()))


def _spoil(groups: dict[str, list[_Instance]]) -> None:
    """Move damaged files to the volumes of their series, so that none is read with a gap."""
    by_series: dict[str, list[_Instance]] = {}
    for first, *_ in groups.values():
        if _is_part(first.header):
            by_series.setdefault(first.header.series, []).append(first)
    for key, (damaged, *_) in [*groups.items()]:
        spoilt = by_series.get(damaged.header.series)
        if spoilt and not damaged.header.frames:
            for instance in spoilt:
                instance.paths.extend(damaged.paths)
            del groups[key]


def _join(groups: dict[str, list[_Instance]]) -> dict[str, list[_Instance]]:
    """Join series of one slice each that are the slices of one acquisition."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for key, members in groups.items():
        header = members[0].header
        is_single = len(members) == 1 and _is_part(header)
        if is_single and header.origin and header.frames[0].position is not None:
            origin = (*header.origin, round_orientation(header.frames[0]))
            alike.setdefault(origin, []).append(key)
    joined = dict(groups)
    for keys in alike.values():
        members = [groups[key][0] for key in keys]
        if _are_even([member.header.frames[0] for member in members]):
            joined[keys[0]] = members
            for key in keys[1:]:
                del joined[key]
    # The key does not depend on which file is the first.
    return {min(_make_key(member) for member in members): members for members in joined.values()}


def _are_even(frames: Sequence[Frame]) -> bool:
    """Return whether positions are evenly spaced, and none repeats."""
    positions = [frame.position for frame in frames if frame.position is not None]
    gaps = np.diff(np.sort(positions))
    if len(positions) < _FEWEST_JOINED or gaps.min() <= _TOLERANCE:
        return False
    return bool(gaps.max() - gaps.min() <= _EVEN * gaps.max())


def _make_stacks(key: str, members: list[_Instance]) -> Iterator[Stack]:
    first = members[0].paths[0]
    whole = members[0] if len(members) == 1 else None
    if whole is not None:
        frames = list(whole.header.frames)
    else:
        frames = [member.header.frames[0] for member in members]
    parts = part_frames(frames)
    for part in parts:
        own = key if len(parts) == 1 else repr((key, part.label))
        if whole is not None:
            chosen = None if len(parts) == 1 else tuple(part.frames)
            yield Stack(own, tuple(whole.paths), chosen, first)
        else:
            paths = [path for place in part.frames for path in members[place].paths]
            yield Stack(own, tuple(paths), None, first)


def _part_by_traits(part: Part, frames: Sequence[Frame], traits: Sequence[str]) -> list[Part]:
    members = [frames[index] for index in part.frames]
    places = dict(zip(part.frames, find_places(members), strict=True))
    is_known = all(frame.position is not None for frame in members)
    if is_known and len(set(places.values())) == len(places):
        return [part]
    for tried, trait in enumerate(traits, 1):
        pieces = _split(part, trait, partial(_read_trait, frames, trait))
        found = [{places[index] for index in piece.frames} for piece in pieces]
        is_shared = bool(set.intersection(*found)) if is_known else trait in _CERTAIN
        if len(pieces) > 1 and is_shared:
            left = traits[tried:]
            return [end for piece in pieces for end in _part_by_traits(piece, frames, left)]
    return [part]


def _read_trait(frames: Sequence[Frame], trait: str, index: int) -> Value:
    return frames[index].traits.get(trait, ())


def _split(part: Part, name: str, read: Callable[[int], Value]) -> list[Part]:
    """Split a part by a value of each frame; it stays whole where the values are equal."""
    groups: dict[Value, list[int]] = {}
    for index in part.frames:
        groups.setdefault(read(index), []).append(index)
    if len(groups) < 2:
        return [part]
    ranked = sorted(groups, key=lambda value: (any(isinstance(x, str) for x in value), value))
    return [Part((*part.label, (name, value)), groups[value]) for value in ranked]
