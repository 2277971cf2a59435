"""From image files to answers that a careful person can use, or to an honest refusal."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.backbones import Backbone, load_backbone
from brainfeat.bundle import HeadBundle
from brainfeat.conformal import COVERAGE
from brainfeat.errors import BundleError, ImageReadError, SpecMismatchError
from brainfeat.extraction import FeatureExtractor
from brainfeat.pipeline import BatchComputer, map_ahead
from brainfeat.preprocessing import preprocess_image
from brainfeat.readers import read_image
from brainfeat.rows import IMAGE_SUFFIXES
from brainfeat.scope import FALSE_REFUSALS, Nearness
from brainfeat.spec import FeatureSpec, Precision

UNCERTAIN = "uncertain"
OUT_OF_SCOPE = "out-of-scope"
NOTICE = "This is no diagnosis: brainfeat is research software and not a medical device."

_PRECISION_BITS = {"float16": 11, "bfloat16": 8, "float32": 24}
_BATCH_SIZE = 32
# Images that are decoded ahead of the base.
_AHEAD = 16

Image = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a head says of one image.

    Attributes
    ----------
    path : str
        As it was given.
    frame : int or None
        Number of the slice in a file of several.
    decision : str or None
        A class; ``"uncertain"`` where several cannot be ruled out, or none is likely;
        ``"out-of-scope"`` where the image is unlike all that the head was fitted on; None where it
        cannot be read.
    probabilities : dict of str to float
        Of each class, calibrated.
    set : list of str or None
        The classes that cannot be ruled out at the coverage, the likeliest first; None where the
        head does not hold what tells them.
    out_of_scope : dict or None
        ``score``, ``threshold`` and whether the image is ``refused``; None likewise. A threshold of
        None refuses nothing: too few images were held out.
    forced : bool
        Whether the decision is the likeliest class though there was reason for none.
    nearest : list of dict
        ``label`` and ``distance`` (one minus the cosine of the features) of the most similar
        training images that the head keeps.
    error : str or None
        Why the image cannot be read.
    """

    path: str
    frame: int | None = None
    decision: str | None = None
    probabilities: dict[str, float]
    set: list[str] | None = None
    out_of_scope: dict[str, Any] | None = None
    forced: bool = False
    nearest: list[dict[str, Any]]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON can hold; of an image that cannot be read, path and error alone."""
        if self.error is not None:
            return {"path": self.path, "frame": self.frame, "error": self.error}
        document = asdict(self)
        del document["error"]
        return document


class Predictor:
    """A head with its base, loaded once for many images.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head; its spec decides base, size, scaling and precision.
    weights : {"imagenet", "random"} or path-like
        Where the weights of the base are, as in :func:`brainfeat.backbones.load_backbone`.
    precision : {"float32", "bfloat16", "float16"} or None
        A higher precision than that of the spec; None takes the spec's.
    coverage : float
        Share of the images of each class whose class shall be in the set.
    false_refusals : float
        Share of images like the held-out ones that are refused.
    force : bool
        Whether a class is named though there is reason for none.
    device : str
        As in :func:`brainfeat.backbones.load_backbone`.
    backbone : callable or None
        Something else that gives features, with the attribute ``spec``.
    n_images : int or None
        How many images there are at most, if that is known: for few, less is compiled.

    Raises
    ------
    BundleError
        The bundle cannot be read, or has a class that is called as an abstention.
    SpecMismatchError
        The base is another one than that of the spec, such as one with other weights, or computes
        in a lower precision.
    WeightsError
        The weights are missing or wrong.
    ParameterError
        One of the other arguments is out of range.
    """

    def __init__(
        self,
        bundle: HeadBundle | str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] = "imagenet",
        precision: Precision | None = None,
        coverage: float = COVERAGE,
        false_refusals: float = FALSE_REFUSALS,
        force: bool = False,
        device: str = "auto",
        backbone: FeatureExtractor | None = None,
        n_images: int | None = None,
    ) -> None:
        if not isinstance(bundle, HeadBundle):
            bundle = HeadBundle.load(bundle)
        if taken := {UNCERTAIN, OUT_OF_SCOPE} & {*bundle.class_names}:
            raise BundleError(
                f"a class is called {', '.join(sorted(taken))}, which is what an abstention is "
                "called; fit the head on a table with another name for it"
            )
        self.bundle = bundle
        self._force = force
        spec = bundle.spec
        self._threshold = None if bundle.scope is None else bundle.scope.threshold(false_refusals)
        self._coverage = coverage
        if bundle.conformal is not None:
            bundle.conformal.quantiles(len(bundle.class_names), coverage=coverage)
        self.backbone = backbone or load_backbone(
            spec.backbone,
            weights=weights,
            scaling=spec.scaling,
            input_size=spec.input_size,
            precision=precision or spec.precision,
            device=device,
            n_images=n_images,
        )
        require_base(spec, self.backbone.spec)

    @property
    def precision(self) -> Precision:
        """What the convolutions compute in."""
        return self.backbone.spec.precision

    def predict(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        n_jobs: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:
        """Predict image files.

        Parameters
        ----------
        paths : sequence of path-like
            JPEG and PNG files.
        n_jobs : int or None
            Threads that read and decode; None takes all cores.
        progress : callable or None
            Called with the number of images done and of all.

        Returns
        -------
        list of Prediction
            One for each path, in their order; one that cannot be read has an `error`.
        """
        found: list[Prediction] = [
            Prediction(path=os.fspath(path), probabilities={}, nearest=[]) for path in paths
        ]
        readable: list[int] = []
        blocks: list[Image] = []

        def receive(places: list[int], features: Image) -> None:
            readable.extend(places)
            blocks.append(np.array(features))
            if progress is not None:
                progress(len(readable), len(paths))

        computer = self._make_computer(len(paths), receive)
        jobs = n_jobs or runtime.usable_cores()
        try:
            images = map_ahead(
                lambda place: self._read(paths[place]), len(paths), n_jobs=jobs, ahead=_AHEAD
            )
            for place, image in enumerate(images):
                if isinstance(image, ImageReadError):
                    found[place] = replace(found[place], error=image.reason)
                else:
                    computer.add(place, image)
            computer.finish()
        finally:
            computer.close()
        if blocks:
            answers = self.answer(np.concatenate(blocks), [found[place].path for place in readable])
            for place, answer in zip(readable, answers, strict=True):
                found[place] = answer
        return found

    def answer(self, X: NDArray[np.float32], paths: Sequence[str]) -> list[Prediction]:
        """Answer for features (n, d) of images with these paths."""
        names = self.bundle.class_names
        probabilities = self.bundle.predict_proba(X)
        sets = None
        if self.bundle.conformal is not None:
            sets = self.bundle.conformal.find_sets(probabilities, coverage=self._coverage)
        near = None if self.bundle.scope is None else self.bundle.scope.look(X)
        answers = []
        for row, path in enumerate(paths):
            p = probabilities[row]
            order = np.argsort(-p, kind="stable")
            kept = None if sets is None else [names[label] for label in order if sets[row, label]]
            scope = self._judge_scope(near, row)
            decision = _decide(names[order[0]], kept, scope)
            forced = self._force and decision in (UNCERTAIN, OUT_OF_SCOPE)
            answers.append(
                Prediction(
                    path=path,
                    decision=names[order[0]] if forced else decision,
                    probabilities={
                        name: float(share) for name, share in zip(names, p, strict=True)
                    },
                    set=kept,
                    out_of_scope=scope,
                    forced=forced,
                    nearest=self._name_nearest(near, row),
                )
            )
        return answers

    def _judge_scope(self, near: Nearness | None, row: int) -> dict[str, Any] | None:
        if near is None or self._threshold is None:
            return None
        score = float(near.scores[row])
        return {
            "score": score,
            "threshold": self._threshold if np.isfinite(self._threshold) else None,
            "refused": score > self._threshold,
        }

    def _name_nearest(self, near: Nearness | None, row: int) -> list[dict[str, Any]]:
        if near is None or self.bundle.scope is None:
            return []
        labels = self.bundle.scope.labels[near.neighbours[row]]
        return [
            {"label": self.bundle.class_names[label], "distance": float(distance)}
            for label, distance in zip(labels, near.distances[row], strict=True)
        ]

    def _read(self, path: str | os.PathLike[str]) -> Image | ImageReadError:
        try:
            image = read_image(path)
        except ImageReadError as error:
            return error
        spec = self.bundle.spec
        return preprocess_image(image, size=spec.input_size, fit=spec.fit)

    def _make_computer(
        self, number: int, receive: Callable[[list[int], Image], None]
    ) -> BatchComputer[int]:
        copies: Sequence[Any] = [self.backbone]
        preferred = _BATCH_SIZE
        if isinstance(self.backbone, Backbone):
            copies, preferred = self.backbone.copies, self.backbone.batch_size
        size = self.bundle.spec.input_size
        return BatchComputer(
            copies,
            batch_size=max(1, min(preferred, number)),
            image_shape=(size, size, 3),
            n_features=self.bundle.spec.n_features,
            receive=receive,
        )


def predict(
    bundle: HeadBundle | str | os.PathLike[str],
    paths: Iterable[str | os.PathLike[str]],
    **options: Any,
) -> list[Prediction]:
    """Predict image files, and the images in folders.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head.
    paths : iterable of path-like
        JPEG and PNG files, and folders, of which all such files are taken.
    **options
        As :class:`Predictor` takes them.

    Returns
    -------
    list of Prediction

    Raises
    ------
    BrainfeatError
        As in :class:`Predictor`.
    """
    files = list_images(paths)
    return Predictor(bundle, **{"n_images": len(files), **options}).predict(files)


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List files as they are, and the images below folders by name; hidden ones are passed over."""
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            files += [
                Path(folder, name)
                for name in sorted(names)
                if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
            ]
    return files


def _decide(likeliest: str, kept: list[str] | None, scope: dict[str, Any] | None) -> str:
    if scope is not None and scope["refused"]:
        return OUT_OF_SCOPE
    return likeliest if kept is None or kept == [likeliest] else UNCERTAIN


def require_base(wanted: FeatureSpec, found: FeatureSpec) -> None:
    """Refuse another base than that of a head's spec; a higher precision is none.

    Raises
    ------
    SpecMismatchError
        Names what differs.
    """
    if _PRECISION_BITS[found.precision] < _PRECISION_BITS[wanted.precision]:
        raise SpecMismatchError(
            f"the head was fitted on features in {wanted.precision}, and this would compute in "
            f"{found.precision}, which is lower"
        )
    wanted.require(
        replace(found, precision=wanted.precision),
        here="the head",
        there="the base",
        remedy="pass the weights that the head was fitted with",
    )
