"""Pictures for a report: the worst errors, and duplicates side by side."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from brainfeat.leakage.overlap import Pair, list_pairs
from brainfeat.report.blocks import Block, Gallery, Picture, Section
from brainfeat.report.results import Study

N_ERRORS = 12
N_PAIRS = 12
# Pixels that a picture is wide at most.
_WIDTH = 200

ReadImage = Callable[[str], ArrayLike]


def make_gallery(study: Study, images: ReadImage) -> Section:
    """Show the images that the head was most wrong about, and copies across the split."""
    blocks: list[Block] = []
    errors = [_show_error(study, row, images) for row in _choose_errors(study)]
    blocks.append(
        Gallery(title="The errors that the head was surest of", groups=errors)
        if errors
        else "The head was right on every image."
    )
    pairs = [_show_pair(pair, images) for pair in _choose_pairs(study)]
    blocks.append(
        Gallery(
            title="Copies: an image that the head has seen, and one of the test, from the most to "
            "the least similar",
            groups=pairs,
        )
        if pairs
        else "No test image has a near duplicate in train or val."
    )
    return Section(name="images", title="Images", blocks=blocks)


def _choose_errors(study: Study) -> list[int]:
    """Choose predictions that are wrong, the surest first."""
    predictions = study.predictions
    called = predictions.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(called != predictions.y)
    surest = np.argsort(-predictions.probabilities[wrong, called[wrong]], kind="stable")
    chosen: list[int] = wrong[surest[:N_ERRORS]].tolist()
    return chosen


def _show_error(
    study: Study, place: int, images: ReadImage
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    predictions, names = study.predictions, study.bundle.class_names
    path = str(study.cache.paths[predictions.rows[place]])
    called = int(predictions.probabilities[place].argmax())
    text = (
        f"{names[predictions.y[place]]}, called {names[called]} with a probability of "
        f"{predictions.probabilities[place, called]:.3f}"
    )
    return (_make_picture(images(path), text),), (text, path)


def _choose_pairs(study: Study) -> list[dict[str, Any]]:
    """Choose pairs across the split: of each test image its nearest, spread over similarities."""
    near = study.audit.near_duplicates
    if near is None or near.chained:
        return []
    best: dict[str, dict[str, Any]] = {}
    for pair in list_pairs(study.cache, threshold=near.threshold):
        turned = _turn(pair)
        if turned is not None:
            known = best.get(turned["test"])
            if known is None or turned["similarity"] > known["similarity"]:
                best[turned["test"]] = turned
    ranked = sorted(best.values(), key=lambda pair: (-pair["similarity"], pair["test"]))
    places = np.unique(np.linspace(0, len(ranked) - 1, N_PAIRS).round().astype(int))
    return [ranked[place] for place in places] if ranked else []


def _turn(pair: Pair) -> dict[str, Any] | None:
    """Name the sides of a pair by their splits; None where it is not across the split."""
    for test, seen in (("first", "second"), ("second", "first")):
        split = getattr(pair, f"split_{seen}")
        if getattr(pair, f"split_{test}") == "test" and split in {"train", "val"}:
            return {
                "test": getattr(pair, test),
                "seen": getattr(pair, seen),
                "similarity": pair.similarity,
                "seen_as": (split, getattr(pair, f"label_{seen}")),
                "test_as": ("test", getattr(pair, f"label_{test}")),
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
    return pictures, (f"similarity {pair['similarity']:.4f}", *texts)


def _make_picture(image: ArrayLike, text: str) -> Picture:
    """Make a PNG that is no wider than a thumbnail."""
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
