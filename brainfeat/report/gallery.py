"""Pictures for a report: the worst errors, and copies side by side."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import ArrayLike

from brainfeat.cache.signature import ORIENTATIONS, invert_orientation
from brainfeat.evaluation.units import IMAGE
from brainfeat.leakage.pairs import Pair, list_copies, list_pairs
from brainfeat.report.blocks import Block, Gallery, Picture, Section
from brainfeat.report.study import Study
from brainfeat.report.wording import capitalise
from brainfeat.text import format_metric

N_ERRORS = 12
N_PAIRS = 12
# Most pixels that a picture is wide.
_WIDTH = 200

ReadImage = Callable[[str], ArrayLike]


def make_gallery(study: Study, images: ReadImage) -> Section:
    """Show the most confident errors, and copies across the splits of the table."""
    blocks: list[Block] = []
    errors = [_show_error(study, row, images) for row in _choose_errors(study)]
    blocks.append(
        Gallery(title="The most confident errors", groups=errors)
        if errors
        else "Every prediction is correct."
    )
    kind = "copies" if study.audit.copies is not None else "near duplicates"
    pairs = [_show_pair(pair, images) for pair in _choose_pairs(study)]
    turned = ", turned to look like it" if kind == "copies" else ""
    blocks.append(
        Gallery(
            title=f"{capitalise(kind)}: an image of train or val, and one of the test split"
            f"{turned}, from the most to the least similar",
            groups=pairs,
        )
        if pairs
        else f"No test image has {kind} in train or val."
    )
    return Section(name="images", title="Images", blocks=blocks)


def _choose_errors(study: Study) -> list[int]:
    """Choose wrong predictions, the most confident first."""
    predictions = study.predictions
    predicted = predictions.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != predictions.y)
    order = np.argsort(-predictions.probabilities[wrong, predicted[wrong]], kind="stable")
    chosen: list[int] = wrong[order[:N_ERRORS]].tolist()
    return chosen


def _show_error(
    study: Study, place: int, images: ReadImage
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    predictions, names = study.predictions, study.evaluation.class_names
    path = str(study.cache.paths[predictions.rows[place]])
    predicted = int(predictions.probabilities[place].argmax())
    text = (
        f"{names[predictions.y[place]]}, predicted as {names[predicted]} with a probability of "
        f"{format_metric(predictions.probabilities[place, predicted])}"
    )
    if study.noun != IMAGE:
        text += f"; of the images of this {study.noun}, the one that speaks most for it"
    return (_make_picture(images(path), text),), (text, path)


def _choose_pairs(study: Study) -> list["_Copy"]:
    """Choose the most similar copy of some test images, spread evenly over similarities."""
    best: dict[str, _Copy] = {}
    for pair in _list_pairs(study):
        copy = _find_copy(pair)
        if copy is not None:
            known = best.get(copy.test.path)
            if known is None or copy.similarity > known.similarity:
                best[copy.test.path] = copy
    ranked = sorted(best.values(), key=lambda copy: (-copy.similarity, copy.test.path))
    places = np.unique(np.linspace(0, len(ranked) - 1, N_PAIRS).round().astype(int))
    return [ranked[place] for place in places] if ranked else []


def _list_pairs(study: Study) -> Iterator[Pair]:
    """List the pairs of copies, or where these are not known, of near duplicates."""
    near = study.audit.near_duplicates
    if study.audit.copies is not None:
        yield from list_copies(study.cache)
    elif near is not None and not near.chained:
        yield from list_pairs(study.cache, threshold=near.threshold)


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image of the cache."""

    path: str
    split: str
    label: str


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """A test image and a duplicate of it in train or val.

    Attributes
    ----------
    seen, test : _Image
    similarity : float
    orientation : int
        How the test image must be turned to look like the other.
    """

    seen: _Image
    test: _Image
    similarity: float
    orientation: int


def _find_copy(pair: Pair) -> _Copy | None:
    """Tell the sides of a pair apart by their splits; None for a pair that is not across them."""
    first = _Image(path=pair.first, split=pair.split_first, label=pair.label_first)
    second = _Image(path=pair.second, split=pair.split_second, label=pair.label_second)
    turn = ORIENTATIONS.index(pair.orientation) if pair.orientation else 0
    for test, seen, orientation in (
        (first, second, invert_orientation(turn)),
        (second, first, turn),
    ):
        if test.split == "test" and seen.split in {"train", "val"}:
            return _Copy(seen=seen, test=test, similarity=pair.similarity, orientation=orientation)
    return None


def _show_pair(copy: _Copy, images: ReadImage) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    sides = ((copy.seen, 0), (copy.test, copy.orientation))
    pictures = tuple(
        _make_picture(
            _turn(images(side.path), orientation),
            f"{side.split} image, {side.label or 'unlabelled'}",
        )
        for side, orientation in sides
    )
    turned = ORIENTATIONS[copy.orientation].replace("_", " ")
    return pictures, (
        f"similarity {format_metric(copy.similarity)}, {turned}",
        *(f"{side.split}: {side.path}" for side, _ in sides),
    )


def _turn(image: ArrayLike, orientation: int) -> ArrayLike:
    """Turn an image (height, width, …) as :data:`brainfeat.cache.signature.ORIENTATIONS` says."""
    pixels = np.asarray(image)
    pixels = pixels[:, ::-1] if orientation & 1 else pixels
    pixels = pixels[::-1] if orientation & 2 else pixels
    return pixels.swapaxes(0, 1) if orientation & 4 else pixels


def _make_picture(image: ArrayLike, text: str) -> Picture:
    """Make a PNG of at most 200 columns."""
    from PIL import Image

    pixels = (np.clip(np.asarray(image, np.float32), 0, 1) * 255).round().astype(np.uint8)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    picture = Image.fromarray(pixels)
    if picture.width > _WIDTH:
        height = max(1, round(picture.height * _WIDTH / picture.width))
        picture = picture.resize((_WIDTH, height), Image.Resampling.LANCZOS)
    file = BytesIO()
    picture.save(file, format="PNG", optimize=True)
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(source=f"data:image/png;base64,{encoded}", text=text)
