"""Heat maps: which parts of an image the score of a class comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import ParameterError
from brainfeat.extraction.backbones import Backbone, FeatureExtractor
from brainfeat.heads.bundle import HeadBundle, require_base

Method = Literal["grad-cam", "occlusion"]
Floats = NDArray[np.float32]

METHODS = ("auto", *get_args(Method))
# Their scores are piecewise linear in the features. A svm's coef_, where it has one, is of pairs.
LINEAR_HEADS = ("logistic", "linear-svm", "lda")
GRADIENT_HEADS = ("dense", *LINEAR_HEADS)

_BATCH_SIZE = 32
# The square that occlusion slides is 1/7 of the image's side, and moves by half of its own side:
# 32 and 16 of 224 pixels, 169 places.
_SQUARES_A_SIDE = 7


@runtime_checkable
class MapExtractor(FeatureExtractor, Protocol):
    """A base that also gives what it averages into features."""

    def compute_maps(self, images: Floats, /) -> Floats:
        """Turn images (n, h, w, 3) into the last layer's maps (n, rows, columns, d)."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Heat maps of images, each for the score of one class.

    Attributes
    ----------
    maps : ndarray of shape (n, s, s), float32
        In [0, 1], in the pixels of the base's input. Each map is divided by its own maximum, so
        that two maps do not compare; it is 0 throughout where no place raises the score.
    method : {"grad-cam", "occlusion"}
        How they were made.
    targets : ndarray of shape (n,), intp
        Index, in the bundle's `class_names`, of the class that each map is of.
    """

    maps: Floats
    method: Method
    targets: NDArray[np.intp]


def explain(
    bundle: HeadBundle,
    images: Floats,
    *,
    backbone: FeatureExtractor,
    targets: ArrayLike | None = None,
    method: Literal["auto", "grad-cam", "occlusion"] = "auto",
) -> Explanation:
    """Make a heat map of each image.

    Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) adds up the last layer's
    maps, each weighted by the derivative of the class's score with respect to it, and keeps what is
    positive. Features are means of these maps and the scores of the dense and linear heads are
    piecewise linear in them, so the derivative is exact and needs no automatic one.

    Occlusion (Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901) covers a square of the image,
    1/7 of its side, with the image's mean grey, moves it by half of its side at a time, and gives
    each pixel the mean fall of the score over the squares that cover it. It needs no derivative,
    and 169 passes of the base an image.

    The score of a class is its logit or margin less the mean of those of all classes; of the
    nearest neighbours and the trees it is the logarithm of the probability.

    Parameters
    ----------
    bundle : HeadBundle
        The fitted head.
    images : ndarray of shape (n, s, s, 3), float32
        RGB in [0, 1], as ``brainfeat.extraction.preprocessing.preprocess_image`` gives them.
    backbone : callable
        The base of the bundle's spec, as
        :func:`brainfeat.extraction.backbones.load_backbone` gives it; Grad-CAM needs its method
        ``compute_maps``. Its precision may be another one.
    targets : array-like of int, shape (n,), or None
        Index of the class that each map is of; None takes the one with the greatest score.
    method : {"auto", "grad-cam", "occlusion"}
        ``"auto"`` is Grad-CAM for the heads ``dense``, ``logistic``, ``linear-svm`` and ``lda`` on
        a base that gives maps, and occlusion for all others.

    Returns
    -------
    Explanation

    Raises
    ------
    ParameterError
        The images, the targets or the method are not as said above, or Grad-CAM was asked for and
        the head has no derivative or the base gives no maps.
    SpecMismatchError
        The base is another one than that of the bundle's spec.

    Notes
    -----
    A map says where a score comes from, not why, and not where a tumour is: it is no diagnosis.
    """
    require_base(bundle.spec, backbone.spec, any_precision=True)
    _check_images(images, bundle.spec.input_size)
    wanted = None if targets is None else _check_targets(targets, len(images), bundle.class_names)
    if _choose_method(method, bundle.head, backbone) == "grad-cam":
        return _apply_grad_cam(bundle, images, backbone, wanted)
    return _apply_occlusion(bundle, images, backbone, wanted)


def class_scores(bundle: HeadBundle, X: Floats) -> NDArray[np.float64]:
    """Give the scores that heat maps are of, (n, k), of features (n, d).

    What all logits have in common changes no probability, and with two classes one logit is 0:
    their mean is taken off. Logarithms of probabilities stay as they are.
    """
    scores = bundle.scores(X)
    if hasattr(bundle.estimator, "decision_function"):
        scores = scores - scores.mean(axis=1, keepdims=True)
    return scores


def score_gradient(bundle: HeadBundle, X: Floats, targets: NDArray[np.intp]) -> NDArray[np.float64]:
    """Differentiate the score of one class by the features.

    Parameters
    ----------
    bundle : HeadBundle
        With a head of `GRADIENT_HEADS`.
    X : ndarray of shape (n, d), float32
        Features.
    targets : ndarray of shape (n,), intp
        The class of each row.

    Returns
    -------
    ndarray of shape (n, d), float64
    """
    if bundle.head == "dense":
        return _differentiate_dense(bundle.estimator, X, targets)
    weights = np.asarray(bundle.estimator["classifier"].coef_, np.float64)
    if len(weights) == 1:
        weights = np.concatenate([np.zeros_like(weights), weights])
    weights = (weights - weights.mean(axis=0)) / bundle.estimator["scaler"].scale_
    return np.asarray(weights[targets])


def _differentiate_dense(head: Any, X: Floats, targets: NDArray[np.intp]) -> NDArray[np.float64]:
    """Go back through the layers; a unit that is off passes nothing on."""
    hidden = (X - head.mean_) / head.scale_
    active = []
    for kernel, bias in head.layers_[:-1]:
        hidden = np.maximum(hidden @ kernel + bias, 0.0)
        active.append(hidden > 0)
    last = np.asarray(head.layers_[-1][0], np.float64)
    gradient = (last - last.mean(axis=1, keepdims=True)).T[targets]
    for (kernel, _), on in zip(reversed(head.layers_[:-1]), reversed(active), strict=True):
        gradient = (gradient * on) @ kernel.T
    return np.asarray(gradient / head.scale_)


def _apply_grad_cam(
    bundle: HeadBundle,
    images: Floats,
    backbone: FeatureExtractor,
    targets: NDArray[np.intp] | None,
) -> Explanation:
    if not isinstance(backbone, MapExtractor):  # _choose_method has seen to it
        raise ParameterError("Grad-CAM needs a base with the method compute_maps")
    heat = np.zeros(images.shape[:3], np.float32)
    found = np.zeros(len(images), np.intp) if targets is None else targets
    size = _batch_size(backbone, len(images))
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        maps = _compute_padded(backbone.compute_maps, images[rows], size)
        features = maps.mean(axis=(1, 2))
        if targets is None:
            found[rows] = bundle.scores(features).argmax(axis=1)
        gradient = score_gradient(bundle, features, found[rows])
        coarse = np.einsum("nhwd,nd->nhw", maps, gradient, optimize=True)
        for place, values in enumerate(coarse, start):
            heat[place] = _normalise(_enlarge(np.maximum(values, 0.0), images.shape[1]))
    return Explanation(maps=heat, method="grad-cam", targets=found)


def _apply_occlusion(
    bundle: HeadBundle,
    images: Floats,
    backbone: FeatureExtractor,
    targets: NDArray[np.intp] | None,
) -> Explanation:
    heat = np.zeros(images.shape[:3], np.float32)
    found = np.zeros(len(images), np.intp) if targets is None else targets
    squares = _place_squares(images.shape[1])
    size = _batch_size(backbone, len(squares))
    covered = np.empty((size, *images.shape[1:]), np.float32)
    for place, image in enumerate(images):
        features = _compute_padded(backbone, image[None], size)
        if targets is None:
            found[place] = bundle.scores(features)[0].argmax()
        target = found[place]
        before = class_scores(bundle, features)[0, target]
        falls, times = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
        for start in range(0, len(squares), size):
            some = squares[start : start + size]
            covered[:] = image
            for copy, square in zip(covered, some, strict=False):
                copy[square] = image.mean()
            features = _compute_padded(backbone, covered[: len(some)], size)
            after = class_scores(bundle, features)[:, target]
            for square, score in zip(some, after, strict=True):
                falls[square] += before - score
                times[square] += 1
        heat[place] = _normalise(np.maximum(falls / times, 0.0))
    return Explanation(maps=heat, method="occlusion", targets=found)


def _place_squares(size: int) -> list[tuple[slice, slice]]:
    """List the places of the square; the last ones are flush with the border."""
    side = max(1, round(size / _SQUARES_A_SIDE))
    starts = [*range(0, size - side, max(1, side // 2)), size - side]
    spans = [slice(start, start + side) for start in starts]
    return [(rows, columns) for rows in spans for columns in spans]


def _compute_padded(compute: Callable[[Floats], Floats], images: Floats, size: int) -> Floats:
    """Compute a batch of one size, for which the base is compiled once."""
    short = size - len(images)
    batch = np.concatenate([images, np.zeros((short, *images.shape[1:]), np.float32)])
    return np.asarray(compute(batch), np.float32)[: len(images)]


def _batch_size(backbone: FeatureExtractor, number: int) -> int:
    most = backbone.batch_size if isinstance(backbone, Backbone) else _BATCH_SIZE
    return max(1, min(most, number))


def _enlarge(values: NDArray[Any], size: int) -> Floats:
    from PIL import Image

    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32).clip(0)


def _normalise(values: NDArray[Any]) -> Floats:
    greatest = values.max()
    return np.asarray(values / greatest if greatest > 0 else values, np.float32)


def _choose_method(method: str, head: str, backbone: FeatureExtractor) -> Method:
    if method not in METHODS:
        raise ParameterError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    differentiable, mapped = head in GRADIENT_HEADS, isinstance(backbone, MapExtractor)
    if method == "grad-cam" and not differentiable:
        raise ParameterError(
            f"Grad-CAM needs a head with a derivative ({', '.join(GRADIENT_HEADS)}), "
            f"got {head}; take occlusion"
        )
    if method == "grad-cam" and not mapped:
        raise ParameterError("Grad-CAM needs a base with the method compute_maps; take occlusion")
    return "occlusion" if method == "occlusion" or not (differentiable and mapped) else "grad-cam"


def _check_images(images: Floats, size: int) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise ParameterError(f"the images must be an array of float32, got {kind}")
    if images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise ParameterError(
            f"the images must have the shape (n, {size}, {size}, 3), got {images.shape}"
        )
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # a NaN must not pass
        raise ParameterError(
            f"the images must lie in [0, 1], got {images.min():g} to {images.max():g}"
        )


def _check_targets(
    targets: ArrayLike, number: int, class_names: tuple[str, ...]
) -> NDArray[np.intp]:
    found = np.asarray(targets)
    if found.shape != (number,) or (number and not np.issubdtype(found.dtype, np.integer)):
        raise ParameterError(
            f"targets must be {number} whole numbers, one for each image, "
            f"got {found.dtype} of shape {found.shape}"
        )
    if number and not (found.min() >= 0 and found.max() < len(class_names)):
        raise ParameterError(
            f"targets must be 0 to {len(class_names) - 1}, got {found.min()} to {found.max()}"
        )
    return found.astype(np.intp)
