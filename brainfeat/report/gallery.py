"""Pictures for a report: the worst errors, and near duplicates side by side."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from brainfeat.leakage.auditing import list_pairs
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


def _choose_pairs(study: Study) -> list[dict[str, Any]]:
    """Choose the nearest seen image of some test images, spread evenly over similarities."""
    near = study.audit.near
    if near is None or near["chained"]:
        return []
    best: dict[str, dict[str, Any]] = {}
    for pair in list_pairs(study.cache, threshold=near["threshold"]):
        turned = _turn(pair)
        if turned is not None:
            known = best.get(turned["test"])
            if known is None or turned["similarity"] > known["similarity"]:
                best[turned["test"]] = turned
    ranked = sorted(best.values(), key=lambda pair: (-pair["similarity"], pair["test"]))
    places = np.unique(np.linspace(0, len(ranked) - 1, N_PAIRS).round().astype(int))
    return [ranked[place] for place in places] if ranked else []


def _turn(pair: dict[str, Any]) -> dict[str, Any] | None:
    """Name the sides of a pair by their splits; None for a pair that is not across the split."""
    for test, seen in (("first", "second"), ("second", "first")):
        if pair[f"split_{test}"] == "test" and pair[f"split_{seen}"] in {"train", "val"}:
            return {
                "test": pair[test],
                "seen": pair[seen],
                "similarity": pair["similarity"],
                "seen_as": (pair[f"split_{seen}"], pair[f"label_{seen}"]),
                "test_as": (pair[f"split_{test}"], pair[f"label_{test}"]),
            }
    return None


def _show_pair(
    pair: dict[str, Any], images: ReadImage
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    pictures = tuple(
        _make_picture(images(pair[side]), f"{split} image, {label or 'unlabelled'}")
        for side in ("seen", "test")
        for split, label in (pair[f"{side}_as"],)
    )
    texts = [f"{pair[f'{side}_as'][0]}: {pair[side]}" for side in ("seen", "test")]
    return pictures, (f"similarity {format_metric(pair['similarity'])}", *texts)


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
