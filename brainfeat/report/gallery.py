"""Pictures for a report: the worst errors, and near duplicates side by side."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import ArrayLike

from brainfeat.leakage.overlap import Pair, list_pairs
from brainfeat.report.blocks import Block, Gallery, Picture, Section
from brainfeat.report.study import Study
from brainfeat.text import format_metric

N_ERRORS = 12
N_PAIRS = 12
# Most pixels that a picture is wide.
_WIDTH = 200

ReadImage = Callable[[str], ArrayLike]


def make_gallery(study: Study, images: ReadImage) -> Section:
    """Show the most confident errors, and near duplicates across the split."""
    blocks: list[Block] = []
    errors = [_show_error(study, row, images) for row in _choose_errors(study)]
    blocks.append(
        Gallery(title="The most confident errors", groups=errors)
        if errors
        else "Every prediction is correct."
    )
    pairs = [_show_pair(pair, images) for pair in _choose_pairs(study)]
    blocks.append(
        Gallery(
            title="Near duplicates: an image that the head has seen, and one of the test split, "
            "from the most to the least similar",
            groups=pairs,
        )
        if pairs
        else "No test image has a near duplicate in train or val."
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
    predictions, names = study.predictions, study.bundle.class_names
    path = str(study.cache.paths[predictions.rows[place]])
    predicted = int(predictions.probabilities[place].argmax())
    text = (
        f"{names[predictions.y[place]]}, predicted as {names[predicted]} with a probability of "
        f"{format_metric(predictions.probabilities[place, predicted])}"
    )
    return (_make_picture(images(path), text),), (text, path)


def _choose_pairs(study: Study) -> list["_Copy"]:
    """Choose the nearest seen image of some test images, spread evenly over similarities."""
    near = study.audit.near_duplicates
    if near is None or near.chained:
        return []
    best: dict[str, _Copy] = {}
    for pair in list_pairs(study.cache, threshold=near.threshold):
        copy = _find_copy(pair)
        if copy is not None:
            known = best.get(copy.test.path)
            if known is None or copy.similarity > known.similarity:
                best[copy.test.path] = copy
    ranked = sorted(best.values(), key=lambda copy: (-copy.similarity, copy.test.path))
    places = np.unique(np.linspace(0, len(ranked) - 1, N_PAIRS).round().astype(int))
    return [ranked[place] for place in places] if ranked else []


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image of the cache."""

    path: str
    split: str
    label: str


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """A test image and a near duplicate that the head has seen."""

    seen: _Image
    test: _Image
    similarity: float


def _find_copy(pair: Pair) -> _Copy | None:
    """Tell the sides of a pair apart by their splits; None for a pair that is not across them."""
    first = _Image(path=pair.first, split=pair.split_first, label=pair.label_first)
    second = _Image(path=pair.second, split=pair.split_second, label=pair.label_second)
    for test, seen in ((first, second), (second, first)):
        if test.split == "test" and seen.split in {"train", "val"}:
            return _Copy(seen=seen, test=test, similarity=pair.similarity)
    return None


def _show_pair(copy: _Copy, images: ReadImage) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    sides = (copy.seen, copy.test)
    pictures = tuple(
        _make_picture(images(side.path), f"{side.split} image, {side.label or 'unlabelled'}")
        for side in sides
    )
    texts = [f"{side.split}: {side.path}" for side in sides]
    return pictures, (f"similarity {format_metric(copy.similarity)}", *texts)


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
