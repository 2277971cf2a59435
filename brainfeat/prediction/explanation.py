"""Heat maps: which regions of an image the score of a class comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.errors import ParameterError
from brainfeat.extraction.backbones import Backbone
from brainfeat.extraction.feature_extractors import FeatureExtractor
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.kinds import MAP_HEADS, takes_maps
from brainfeat.heads.maps import MapRows
from brainfeat.prediction.computed_features import take_features
from brainfeat.prediction.joined_bases import HeadInputs, require_bases

Method = Literal["grad-cam", "occlusion", "attention"]
Kind = Literal["auto", "grad-cam", "occlusion", "attention"]
Floats = NDArray[np.float32]

METHODS = ("auto", *get_args(Method))
# Their scores are piecewise linear in the features. The coef_ of an SVM is of pairs of classes.
LINEAR_HEADS = ("logistic", "linear-svm", "lda")
GRADIENT_HEADS = ("dense", *LINEAR_HEADS)

_BATCH_SIZE = 32
# The occluding square has 1/7 of the image's side and moves by half of its own side: of 224 pixels
# these are 32 and 16, which makes 169 positions.
_SQUARES_A_SIDE = 7


@runtime_checkable
class MapExtractor(FeatureExtractor, Protocol):
    """A base that also computes the maps whose means are the features."""

    def compute_maps(self, images: Floats, /) -> Floats:
        """Compute the maps of the last layer (n, rows, columns, d) from images (n, h, w, 3)."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Heat maps of images, each for the score of one class, or of the attention of the head.

    Attributes
    ----------
    maps : ndarray of shape (n, s, s), float32
        In [0, 1], in the pixels of the input of the base; of an image that was cropped, this is the
        part that :func:`brainfeat.extraction.cropping.find_box` finds. Each map is divided by its
        own maximum, so that two maps are not comparable; it is 0 everywhere if no region raises
        the score.
    method : {"grad-cam", "occlusion", "attention"}
        How they were computed; those of attention are of no class.
    targets : ndarray of shape (n,), intp
        Index of the class of each map in `class_names` of the bundle.
    """

    maps: Floats
    method: Method
    targets: NDArray[np.intp]


@default_errors
def explain(
    bundle: HeadBundle,
    images: Floats,
    *,
    backbone: FeatureExtractor,
    targets: ArrayLike | None = None,
    method: Kind = "auto",
) -> Explanation:
    """Compute a heat map of each image.

    Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) sums the maps of the last
    layer, each weighted by the derivative of the class score with respect to it, and keeps the
    positive part. The features are the means of these maps, and the scores of dense and linear
    heads are piecewise linear in them, so that the derivative is exact without automatic
    differentiation.

    Occlusion (Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901) covers a square of 1/7 of the
    image's side with the mean grey of the image and moves it by half of its side at a time. The
    value of a pixel is the mean decrease of the score over the squares that cover it. This needs no
    derivative, but 169 passes of the base per image; of a head of several bases or layers, of each
    base.

    Attention shows the weight of each position of the last layer in a head that has learned such:
    the same for all classes.

    The score of a class is its logit or margin minus the mean over all classes; for the nearest
    neighbours and the trees it is the logarithm of the probability. Ensembles are explained by
    occlusion.

    Parameters
    ----------
    bundle : HeadBundle
        The fitted head.
    images : ndarray of shape (n, s, s, 3), float32
        RGB in [0, 1], as ``brainfeat.extraction.preprocessing.preprocess_image`` returns them.
    backbone : callable
        The base of the bundle's spec, as
        :func:`brainfeat.extraction.backbones.load_backbone` returns it, in any precision. Grad-CAM
        needs its method ``compute_maps``. Of a head that was joined on images, what
        :func:`brainfeat.prediction.joined_bases.load_bases` returns.
    targets : array-like of int, shape (n,), or None
        Index of the class of each map; None takes the class with the highest score.
    method : {"auto", "grad-cam", "occlusion", "attention"}
        ``"auto"`` is Grad-CAM for the heads ``dense``, ``logistic``, ``linear-svm`` and ``lda`` on
        a base with ``compute_maps``, and occlusion otherwise: also where features are of several
        bases or layers, whose maps have no common scale. Attention is for the heads
        ``attention-pool`` and ``cbam``.

    Returns
    -------
    Explanation

    Raises
    ------
    ParameterError
        The images, the targets or the method are not as described, or Grad-CAM or attention is not
        possible with this head or base; or the head takes bags, or bases that see images
        differently.
    SpecMismatchError
        The base is another one than that of the bundle's spec.

    Notes
    -----
    A map shows where a score comes from. It shows neither why nor where a tumour is, and it is not
    a diagnosis.
    """
    require_images(bundle)
    require_bases(bundle, backbone, any_precision=True)
    _check_images(images, bundle.specs[0].input_size)
    wanted = None if targets is None else _check_targets(targets, len(images), bundle.class_names)
    apply = {
        "grad-cam": _apply_grad_cam,
        "occlusion": _apply_occlusion,
        "attention": _apply_attention,
    }[_choose_method(method, bundle.head, backbone)]
    return apply(bundle, images, backbone, wanted)


def require_images(bundle: HeadBundle) -> None:
    """Refuse a head whose score is not of one image, or of one that its bases see differently.

    Raises
    ------
    ParameterError
        The head takes bags, or its bases take images of other sizes or crops.
    """
    if bundle.bag is not None:
        raise ParameterError(
            "heat maps are of single images, and this head takes all images of a patient together; "
            "take a head of images"
        )
    if len(kinds := HeadInputs.of(bundle.specs).kinds) > 1:
        seen = " and ".join(f"{kind.size} pixels{kind.crop and ', cropped'}" for kind in kinds)
        raise ParameterError(
            f"the bases of this head see an image as {seen}, so that no region is the same in all; "
            "take a head of bases with one input size and crop"
        )


def class_scores(bundle: HeadBundle, X: Floats | MapRows) -> NDArray[np.float64]:
    """Compute the scores that heat maps are based on.

    The mean of the logits is subtracted: it does not change any probability, and with two classes
    one logit is always 0. Logarithms of probabilities are not changed.

    Parameters
    ----------
    bundle : HeadBundle
    X : ndarray of shape (n, d), float32, or MapRows
        Features.

    Returns
    -------
    ndarray of shape (n, k), float64
    """
    scores = bundle.scores(X)
    if hasattr(bundle.estimator, "decision_function"):
        scores = scores - scores.mean(axis=1, keepdims=True)
    return scores


def score_gradient(bundle: HeadBundle, X: Floats, targets: NDArray[np.intp]) -> NDArray[np.float64]:
    """Differentiate the score of one class with respect to the features.

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
    """Propagate back through the layers; an inactive unit passes no gradient on."""
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
        pool = np.max if bundle.spec.pooling == "max" else np.mean
        features = pool(maps, axis=(1, 2))
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

    def compute(some: Floats, size: int) -> Floats | MapRows:
        return take_features(bundle.spec, backbone, _compute_padded(backbone, some, size))

    for place, image in enumerate(images):
        features = compute(image[None], size)
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
            features = compute(covered[: len(some)], size)
            after = class_scores(bundle, features)[:, target]
            for square, score in zip(some, after, strict=True):
                falls[square] += before - score
                times[square] += 1
        heat[place] = _normalise(np.maximum(falls / times, 0.0))
    return Explanation(maps=heat, method="occlusion", targets=found)


def _apply_attention(
    bundle: HeadBundle,
    images: Floats,
    backbone: FeatureExtractor,
    targets: NDArray[np.intp] | None,
) -> Explanation:
    heat = np.zeros(images.shape[:3], np.float32)
    found = np.zeros(len(images), np.intp) if targets is None else targets
    size = _batch_size(backbone, len(images))
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        computed = _compute_padded(backbone, images[rows], size)
        features = take_features(bundle.spec, backbone, computed)
        if targets is None:
            found[rows] = bundle.scores(features).argmax(axis=1)
        for place, weights in enumerate(bundle.attention(features), start):
            heat[place] = _normalise(_enlarge(weights, images.shape[1]))
    return Explanation(maps=heat, method="attention", targets=found)


def _place_squares(size: int) -> list[tuple[slice, slice]]:
    """List the positions of the square; the last ones touch the border."""
    side = max(1, round(size / _SQUARES_A_SIDE))
    starts = [*range(0, size - side, max(1, side // 2)), size - side]
    spans = [slice(start, start + side) for start in starts]
    return [(rows, columns) for rows in spans for columns in spans]


def _compute_padded(compute: Callable[[Floats], Floats], images: Floats, size: int) -> Floats:
    """Compute in batches of one size, so that the base is compiled only once."""
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


def check_method(method: str, bundle: HeadBundle, backbone: FeatureExtractor) -> None:
    """Refuse a method that is not possible with a head or a base.

    Raises
    ------
    ParameterError
        As in :func:`explain`.
    """
    _choose_method(method, bundle.head, backbone)


def _choose_method(method: str, head: str, backbone: FeatureExtractor) -> Method:
    if method not in METHODS:
        raise ParameterError(f"method {method!r}; expected one of {', '.join(METHODS)}")
    differentiable, mapped = head in GRADIENT_HEADS, isinstance(backbone, MapExtractor)
    if method == "grad-cam" and not differentiable:
        raise ParameterError(
            f"Grad-CAM needs a head with a derivative ({', '.join(GRADIENT_HEADS)}), "
            f"got {head}; use occlusion"
        )
    if method == "grad-cam" and not mapped:
        raise ParameterError(
            "Grad-CAM needs one base and layer, with the method compute_maps; use occlusion"
        )
    if method == "attention" and not takes_maps(head):
        raise ParameterError(
            f"attention needs a head that weighs positions ({', '.join(MAP_HEADS)}), got {head}; "
            "use another method"
        )
    if method == "attention":
        return "attention"
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
        among = f"0 to {len(class_names) - 1}"
        raise ParameterError(f"targets must be {among}, got {found.min()} to {found.max()}")
    return found.astype(np.intp)
