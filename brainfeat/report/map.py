"""A map of a cache as one HTML page: a point an image, coloured by what is known of it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.errors import ParameterError
from brainfeat.report.charts import N_COLOURS
from brainfeat.report.embedding import Embedding, check_images, embed_images
from brainfeat.report.html import make_environment
from brainfeat.report.outline import NOT_A_DEVICE, PURPOSE
from brainfeat.report.wording import name_base_of_cache
from brainfeat.text import count

# What the title of every map starts with.
TITLE = "Map of a feature cache"
MAX_IMAGES = 10_000

# Names that a legend has at most; the rarest are summed up.
_NAMED = 12
# Of the drawing: its width, and what is free at its edges.
_WIDTH, _MARGIN = 2000, 20
# What a marker adds to its position: points and squares are the caps of a line without length.
_MARKERS = (
    "h0",
    "h0",
    "m0-10l9 16h-18z",
    "m0-11l11 11-11 11-11-11z",
    "m-9 0h18m-9-9v18",
    "m-7-7l14 14m-14 0l14-14",
)


@dataclass(frozen=True, kw_only=True)
class Category:
    """The points of one colour and shape.

    Attributes
    ----------
    name : str
    images : int
    path : str
        The points as the data of an SVG path.
    shape : int
        Index of the marker.
    colour : str
        A variable of the style sheet.
    """

    name: str
    images: int
    path: str
    shape: int
    colour: str


@dataclass(frozen=True, kw_only=True)
class Colouring:
    """A way to colour the points: its name on the page, what it shows, and its categories."""

    name: str
    title: str
    categories: Sequence[Category]


@default_errors
def to_map(
    cache: FeatureCache | str | os.PathLike[str],
    *,
    predicted: npt.ArrayLike | None = None,
    doubted: Sequence[str] = (),
    max_images: int = MAX_IMAGES,
    random_state: int = 0,
) -> str:
    """Draw a map of a cache as one HTML page.

    A point is an image (view 0). Points that are near each other have similar features; distances
    between clusters, and their sizes, mean nothing (Wattenberg et al. 2016, Distill,
    doi:10.23915/distill.00002). Points are coloured by class, split and source, as far as these
    are known, and by error. The page loads nothing, runs no code, and has no image and no path.

    Parameters
    ----------
    cache : FeatureCache or path-like
        Pooled features.
    predicted : array-like of shape (n,), int, or None
        Class of each row as it was predicted out of fold, −1 where it was not, such as
        ``find_label_doubts(cache).predicted``. Without it, points are not coloured by error.
    doubted : sequence of str
        Paths of the images whose labels are in doubt.
    max_images : int
        Of more images, as many are drawn, from each class and split in proportion.
    random_state : int
        Seed of the drawing of images and of t-SNE.

    Returns
    -------
    str
        The page; equal arguments give equal pages on one machine.

    Raises
    ------
    CacheError
        There are fewer than ten images; or the features are maps, not finite, or all the same.
    ParameterError
        `predicted` has another shape, or `max_images` is below ten.
    MissingDependencyError
        Jinja is not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=2, size=48))
    ...     result = extract(
    ...         table,
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    ...     page = to_map(result.output)
    >>> page.startswith("<!DOCTYPE html>"), "<script" in page
    (True, False)
    """
    with opened(cache) as features:
        environment = check_map(features)
        classes = None if predicted is None else np.asarray(predicted)
        if classes is not None and classes.shape != (len(features),):
            raise ParameterError(
                f"predicted has shape {classes.shape}; expected ({len(features)},), a class a row"
            )
        if max_images < 10:
            raise ParameterError(f"max_images is {max_images}; expected 10 or more")
        found = embed_images(features, max_images=max_images, random_state=random_state)
        labels = _Labels(features, found, classes, doubted)
        places, height = _place(found.positions)
        page: str = environment.get_template("map.html.j2").render(
            title=f"{TITLE}: {name_base_of_cache(features)}",
            subtitle=_describe_images(found),
            colourings=list(_list_colourings(labels, places)),
            width=_WIDTH,
            height=height,
            markers=_MARKERS,
            points=zip(places.tolist(), labels.describe_points(), strict=True),
            rows=labels.count_classes(),
            checked=classes is not None,
            found=found,
            random_state=random_state,
            version=version("brainfeat"),
            not_a_device=NOT_A_DEVICE,
            purpose=PURPOSE,
        )
    return page


def check_map(cache: FeatureCache) -> Any:
    """Refuse a cache that no map can be made of, and return what renders one."""
    check_images(cache)
    return make_environment()


class _Labels:
    """What is known of each point: its class, split, source and predicted class."""

    def __init__(
        self,
        cache: FeatureCache,
        found: Embedding,
        predicted: npt.NDArray[Any] | None,
        doubted: Sequence[str],
    ) -> None:
        rows = found.rows
        names = np.array([*cache.class_names, ""])
        self.label = names[cache.y[rows]]
        self.split, self.source = cache.splits[rows], cache.sources[rows]
        self.predicted = None if predicted is None else names[predicted[rows]]
        self.doubted = np.isin(cache.paths[rows], list(doubted))

    def compare(self) -> npt.NDArray[np.str_] | None:
        """Tell whether each label is the predicted class; None where nothing was predicted."""
        if self.predicted is None:
            return None
        agrees = np.where(self.predicted == self.label, _AGREES, _DIFFERS)
        known = np.where(self.predicted == "", _UNCHECKED, agrees)
        return np.where(self.doubted, _DOUBTED, known)

    def describe_points(self) -> Iterator[str]:
        """Describe each point by what is known of it."""
        predicted = np.full(len(self.label), "") if self.predicted is None else self.predicted
        columns = (self.label, self.split, self.source, predicted, self.doubted)
        for label, split, source, other, doubted in zip(*columns, strict=True):
            parts = [label or "no label", split, source]
            if other and other != label:
                parts.append(f"predicted {other}")
            if doubted:
                parts.append("label in doubt")
            yield ", ".join(str(part) for part in parts if part)

    def count_classes(self) -> list[tuple[str, int, int, int]]:
        """Count the points of each class, those that are predicted otherwise and those in doubt."""
        predicted = self.label if self.predicted is None else self.predicted
        wrong = (predicted != self.label) & (predicted != "")
        return [
            (
                str(name) or "no label",
                int((self.label == name).sum()),
                int((wrong & (self.label == name)).sum()),
                int((self.doubted & (self.label == name)).sum()),
            )
            for name in np.unique(self.label)
        ]


_AGREES, _DIFFERS = "predicted as labelled", "predicted as another class"
_DOUBTED, _UNCHECKED = "label in doubt", "not checked"
_ERROR_STYLE = {
    _AGREES: (0, "var(--faint)"),
    _UNCHECKED: (4, "var(--series-7)"),
    _DIFFERS: (2, "var(--series-0)"),
    _DOUBTED: (3, "var(--series-6)"),
}


def _describe_images(found: Embedding) -> str:
    if len(found.rows) == found.images:
        return count(found.images, "image")
    return f"{len(found.rows):,} of {found.images:,} images, drawn from each class and split"


def _place(positions: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], int]:
    """Scale positions to whole numbers in the drawing, one scale for both axes."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    scale = (_WIDTH - 2 * _MARGIN) / max(float(high[0] - low[0]), 1e-9)
    scale = min(scale, 1.5 * _WIDTH / max(float(high[1] - low[1]), 1e-9))
    places = np.rint((positions - low) * scale + _MARGIN).astype(np.int64)
    return places, int(places[:, 1].max()) + _MARGIN


def _list_colourings(labels: _Labels, places: npt.NDArray[np.int64]) -> Iterator[Colouring]:
    columns = {"class": labels.label, "split": labels.split, "source": labels.source}
    for name, values in columns.items():
        if (values != "").any():
            yield Colouring(name=name, title=name, categories=_categorise(values, places, name))
    error = labels.compare()
    if error is not None:
        found = [
            _make_category(name, places[error == name], shape, colour)
            for name, (shape, colour) in _ERROR_STYLE.items()
            if (error == name).any()
        ]
        yield Colouring(name="error", title="error", categories=found)
    elif not any((values != "").any() for values in columns.values()):
        every = [_make_category("images", places, 0, "var(--series-0)")]
        yield Colouring(name="image", title="image", categories=every)


def _categorise(
    values: npt.NDArray[np.str_], places: npt.NDArray[np.int64], kind: str
) -> list[Category]:
    """Give each value a colour and a shape; the rarest of many are one category."""
    counts = Counter(values[values != ""].tolist())
    named = sorted(name for name, _ in counts.most_common(_NAMED if len(counts) > _NAMED else None))
    found = [
        _make_category(
            name,
            places[values == name],
            place % len(_MARKERS),
            f"var(--series-{place % N_COLOURS})",
        )
        for place, name in enumerate(named)
    ]
    rest = {
        f"no {kind}": values == "",
        f"{len(counts) - len(named):,} more": (values != "") & ~np.isin(values, named),
    }
    return [
        *(
            _make_category(name, places[chosen], 0, "var(--faint)")
            for name, chosen in rest.items()
            if chosen.any()
        ),
        *found,
    ]


def _make_category(name: str, places: npt.NDArray[np.int64], shape: int, colour: str) -> Category:
    marker = _MARKERS[shape]
    return Category(
        name=name,
        images=len(places),
        path="".join(f"M{x} {y}{marker}" for x, y in places.tolist()),
        shape=shape,
        colour=colour,
    )
