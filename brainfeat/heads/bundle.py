"""HeadBundle: a fitted head and its file format. Loading one runs no code of the file."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.cache.joined import JOINED
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import HEAD_FIRST, StoredFile, Verify
from brainfeat.errors import BrainfeatError, BundleError, ParameterError, SpecMismatchError
from brainfeat.heads.archive import REBUILD_ERRORS
from brainfeat.heads.bags import ATTENTION, BagRule, Bags, Features, pool_all
from brainfeat.heads.blocks import Blocks
from brainfeat.heads.bundle_file import check_target, read_fields, write_bundle
from brainfeat.heads.bundle_schema import BUNDLE_SCHEMA
from brainfeat.heads.calibration import softmax
from brainfeat.heads.conformal import Conformal
from brainfeat.heads.fitted_images import FittedImages
from brainfeat.heads.kinds import head_scores, takes_maps
from brainfeat.heads.maps import MapRows
from brainfeat.heads.ood import OODDetector
from brainfeat.heads.record import FitRecord

_PROBE_TOLERANCE = 1e-4

# What a head takes: vectors of images; of a bag head, the vectors of each group;
# of a head of maps, the map of each image.
Examples = ArrayLike | Bags | MapRows | Sequence[ArrayLike]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadBundle:
    """A fitted head with everything that a prediction needs.

    Attributes
    ----------
    spec : FeatureSpec
        What the features must be.
    class_names : tuple of str
        The classes, in the order of the columns of :meth:`predict_proba`.
    head : str
        Name of the head, such as ``"svm"``.
    params : dict
        Parameters that the head was made with.
    estimator : scikit-learn classifier
        The fitted head; its classes are 0…k−1.
    temperature : float
        Divides the scores before the softmax.
    training : FitRecord
        How the head was fitted: sizes of the splits, metrics, seed, digest of the cache, versions.
    probe : ndarray of shape (m, d), float32, Bags, or MapRows
        Vectors whose probabilities are stored, and compared when the file is loaded; bags of them
        for a bag head, maps for a head of maps.
    bag : BagRule or None
        How the images of a group become one example of a bag head; None for a head of images.
    blocks : Blocks or None
        Names and specs of the caches that were joined, and what fills one that is missing of a
        group; None for a head that was fitted on one cache.
    ood_detector : OODDetector or None
        Detects images that are unlike those that the head was fitted on.
    conformal : Conformal or None
        Predicts sets of classes that hold the true class at a target coverage.
    fitted_images : FittedImages or None
        The images that it was fitted on, by digest and signature; None in a file of format 1.
    content_sha256 : str
        Digest of the content of the file that it was loaded from; empty if it was not loaded.
    """

    spec: FeatureSpec
    class_names: tuple[str, ...]
    head: str
    params: dict[str, Any]
    estimator: Any
    temperature: float
    training: FitRecord
    probe: Features
    bag: BagRule | None = None
    blocks: Blocks | None = None
    ood_detector: OODDetector | None = None
    conformal: Conformal | None = None
    fitted_images: FittedImages | None = None
    content_sha256: str = ""

    def scores(self, X: Examples) -> NDArray[np.float64]:
        """Compute scores; divided by `temperature`, their softmax gives the probabilities.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features of this bundle's spec; of a bag head, :class:`brainfeat.heads.bags.Bags`, a
            list of arrays of shape (m, d), or an array of shape (n, m, d). Of a head of several
            blocks, one vector of each block side by side; of groups, NaN where it is missing. Of a
            head of maps, :class:`brainfeat.heads.maps.MapRows`, or an array of shape (n, h, w, d).

        Returns
        -------
        ndarray of shape (n, k), float64
            Columns are in the order of `class_names`.

        Raises
        ------
        BundleError
            X has another shape, or a value that is not finite; a bag head was given single vectors,
            or a head of images bags.
        """
        features = self._pool(X)
        if not len(features):
            return np.empty((0, len(self.class_names)))
        return head_scores(self.estimator, features)

    def vectors(self, X: Examples) -> NDArray[np.float32]:
        """Return one vector for each example, as `ood_detector` takes them.

        Parameters
        ----------
        X : array-like
            As of :meth:`scores`.

        Returns
        -------
        ndarray of shape (n, d), float32
            The vectors themselves; of a bag head, the pooled vectors, or the mean of those that a
            head weighs by attention; of a head of maps, the means over the positions.

        Raises
        ------
        BundleError
            As in :meth:`scores`.
        """
        return pool_all(self._pool(X))

    def predict_proba(self, X: Examples) -> NDArray[np.float64]:
        """Compute the calibrated probability of each class.

        Parameters
        ----------
        X : array-like
            As of :meth:`scores`.

        Returns
        -------
        ndarray of shape (n, k), float64
            Columns are in the order of `class_names`; rows sum to 1.

        Raises
        ------
        BundleError
            As in :meth:`scores`.
        """
        return softmax(self.scores(X), temperature=self.temperature)

    def predict(self, X: Examples) -> NDArray[np.str_]:
        """Predict the most probable class.

        Parameters
        ----------
        X : array-like
            As of :meth:`scores`.

        Returns
        -------
        ndarray of shape (n,), str
            Names of classes.

        Raises
        ------
        BundleError
            As in :meth:`scores`.
        """
        named: NDArray[np.str_] = np.array(self.class_names)[self.predict_proba(X).argmax(axis=1)]
        return named

    def attention(self, X: Examples) -> NDArray[np.float64]:
        """Compute how much each vector counts in its bag, or each position in its map.

        A weight says how much a vector counts in this head, and neither that there is a finding in
        its image nor that there is none in the others: other weights can give the same answer.

        Parameters
        ----------
        X : array-like
            Bags or maps, as of :meth:`scores`.

        Returns
        -------
        ndarray of shape (number of vectors,), or (n, h, w) for maps, float64
            Bag after bag; the weights of a bag sum to 1. Those of the positions of a map sum to 1
            for the head ``attention-pool``; each is in (0, 1) for ``cbam``.

        Raises
        ------
        BundleError
            As in :meth:`scores`; or the head weighs neither vectors nor positions by attention.
        """
        if takes_maps(self.head):
            positions: NDArray[np.float64] = self.estimator.attention_maps(self._pool(X))
            return positions
        if self.head == "se":
            raise BundleError(
                "an se head weighs the channels of an image, and no positions; fit an "
                "attention-pool or a cbam head"
            )
        if self.bag is None or self.bag.pooling != ATTENTION:
            how = "takes single images" if self.bag is None else f"pools by {self.bag.pooling}"
            raise BundleError(
                f'this head {how}, without weights of images; fit one with bag="attention"'
            )
        weights: NDArray[np.float64] = self.estimator.attention(self._pool(X))
        return weights

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """The spec of each block, or the one of a head of one cache."""
        return (self.spec,) if self.blocks is None else self.blocks.specs

    @property
    def takes_modalities(self) -> bool:
        """Whether it takes groups, such as patients, with images of several blocks."""
        return self.blocks is not None and self.blocks.on == "group"

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse features of another spec.

        Parameters
        ----------
        spec : FeatureSpec
            The spec of the features.

        Raises
        ------
        SpecMismatchError
            The message names each field that differs.
        """
        if self.blocks is not None and spec.backbone != self.spec.backbone:
            raise SpecMismatchError(
                f"the head takes features of {len(self.blocks.names)} caches, got one; pass one "
                f"for each of {', '.join(self.blocks.names)}"
            )
        if self.blocks is None and spec.backbone == JOINED:
            raise SpecMismatchError("the head takes features of one cache, got several joined ones")
        self.spec.require(spec, here="the head", there="the cache")

    def require_one_block(self, task: str) -> None:
        """Refuse a task that takes a head of one base and layer.

        Parameters
        ----------
        task : str
            What is to be done, for the message.

        Raises
        ------
        BundleError
            The head was fitted on several caches or layers together.
        """
        if self.blocks is not None:
            raise BundleError(
                f"{task} takes a head of one base and layer, and this one has several blocks: "
                f"{', '.join(self.blocks.names)}"
            )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the bundle to one file, atomically.

        Parameters
        ----------
        path : path-like
            The file.
        overwrite : bool
            Whether an existing file is replaced.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        BundleError
            The file exists or cannot be written, or the head has a type or a parameter that a
            reader would refuse.
        """
        return write_bundle(self, check_target(path, overwrite=overwrite))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: Verify = "full") -> Self:
        """Read a bundle; no code of the file is executed.

        Parameters
        ----------
        path : path-like
            A file that :meth:`save` wrote.
        verify : {"full", "off"}
            ``"full"`` compares the SHA-256 of the file with the one that it was written with.

        Returns
        -------
        HeadBundle

        Raises
        ------
        BundleError
            The file does not exist, is damaged or of another format, holds a type that is not
            allowed, or gives other probabilities than those stored with it.
        """
        with StoredFile(path, BUNDLE_SCHEMA, verify=verify) as file, warnings.catch_warnings():
            # Such as that of another version of scikit-learn: the probe shows whether it matters.
            warnings.simplefilter("ignore")
            try:
                fields, expected = read_fields(file)
                bundle = cls(**fields)
                bundle._check_probe(expected)
            except BrainfeatError as error:
                reason = " ".join(str(error).split())
                raise BundleError(f"{path}: {reason}") from error
        return bundle

    def _pool(self, X: Examples) -> Features:
        """Check vectors, bags or maps; return what the estimator takes."""
        width = self.spec.n_features
        if takes_maps(self.head):
            return self._take_maps(X)
        if isinstance(X, MapRows):
            raise BundleError(f"maps of images; this head takes vectors, (n, {width})")
        if self.blocks is not None and self.blocks.fill is not None:
            if isinstance(X, Bags):
                raise BundleError(f"bags of vectors; this head takes joined vectors, (n, {width})")
            return self.blocks.fill.apply(self.blocks.check_vectors(np.asarray(X, np.float32)))
        if self.bag is not None:
            try:
                bags = Bags.collect(X, width)
            except ParameterError as error:
                raise BundleError(f"{error}; this head takes bags of vectors") from error
            return bags if self.bag.pooling == ATTENTION else bags.pool(self.bag.pooling)
        if isinstance(X, Bags):
            raise BundleError(f"bags of vectors; this head takes vectors, (n, {width})")
        features = np.asarray(X, np.float32)
        if features.ndim != 2 or features.shape[1] != width:
            raise BundleError(f"features have shape {features.shape}; this head takes (n, {width})")
        if not np.isfinite(features).all():
            raise BundleError("the features hold values that are not finite")
        return features

    def _take_maps(self, X: Any) -> MapRows:
        try:
            return MapRows.collect(X, self.spec.n_features)
        except ParameterError as error:
            raise BundleError(f"{error}; this head takes maps of images") from error

    def _check_probe(self, expected: NDArray[np.float64]) -> None:
        try:
            found = self.predict_proba(self.probe)
        except REBUILD_ERRORS as error:
            raise BundleError(f"the stored head cannot predict ({error})") from error
        same = found.shape == expected.shape == (len(self.probe), len(self.class_names))
        if not same or not len(found) or not np.allclose(found, expected, atol=_PROBE_TOLERANCE):
            raise BundleError("the stored head does not give the probabilities stored with it")


def loaded(head: HeadBundle | str | os.PathLike[str]) -> HeadBundle:
    """Return a head, which is loaded where a path is given.

    Raises
    ------
    BundleError
        As in :meth:`HeadBundle.load`, or something else was given.
    """
    if isinstance(head, HeadBundle):
        return head
    if not isinstance(head, str | os.PathLike):
        raise BundleError(
            f"a {type(head).__name__} in place of a head; expected a HeadBundle or a path; "
            f"{HEAD_FIRST}"
        )
    return HeadBundle.load(head)
