"""Backbones: frozen convolutional bases that turn images into features, loaded by name."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.spec import PRECISIONS, SCALINGS, FeatureSpec, Pooling, Precision, Scaling
from brainfeat.errors import ParameterError
from brainfeat.extraction.architectures import BACKBONES, Architecture
from brainfeat.extraction.engines import Engine, choose_engine, choose_precision
from brainfeat.extraction.graph import read_graph
from brainfeat.extraction.keras_engine import KerasBase
from brainfeat.extraction.openvino_engine import Observed, OpenvinoBase, observe
from brainfeat.extraction.quantization import Quantization
from brainfeat.extraction.taps import Taps, choose_taps
from brainfeat.extraction.weight_files import Tensors
from brainfeat.extraction.weights import (
    digest_file,
    digest_tensors,
    find_weights_file,
    load_tensors,
)

_LARGEST_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen convolutional base that turns images into pooled features.

    Made by :func:`load_backbone`. The weights are read only when the spec or features are needed.

    Parameters
    ----------
    name : str
        A key of :data:`brainfeat.extraction.architectures.BACKBONES`.
    weights : str
        ``"imagenet"``, ``"random"``, or the path of a Keras weights file.
    scaling, input_size, precision
        As in :class:`brainfeat.cache.spec.FeatureSpec`.
    random_state : int
        Seed of random weights.
    device : str
        As in :func:`brainfeat.runtime.find_devices`.
    engine : {"keras", "openvino"}
        What computes it.
    quantization : str
        As in :class:`brainfeat.cache.spec.FeatureSpec`.
    layers : tuple of str
        Names of the layers whose maps become features; none takes the last.
    pooling : {"mean", "max", "none"}
        How a map becomes a vector; ``"none"`` keeps the deepest map beside the means.

    Examples
    --------
    >>> backbone = load_backbone("mobilenet-0.75", weights="random", input_size=32)
    >>> import numpy as np
    >>> backbone(np.zeros((2, 32, 32, 3), np.float32)).shape
    (2, 768)
    """

    name: str
    weights: str
    scaling: Scaling
    input_size: int
    precision: Precision
    random_state: int
    device: str
    engine: Engine
    quantization: str = ""
    layers: tuple[str, ...] = ()
    pooling: Pooling = "mean"

    @cached_property
    def taps(self) -> Taps:
        """The layers whose maps become features, in the order of the network."""
        return choose_taps(self.name, self.layers, pooling=self.pooling)

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of the maps of the deepest layer."""
        return self.taps.find_map_shape(self.input_size)

    @property
    def architecture(self) -> Architecture:
        """The entry of the base in the table of architectures."""
        return BACKBONES[self.name]

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """All options that determine the spec, found without reading the weights.

        A cache stores it, so that a later run over the same images can find that nothing is missing
        without loading the base.
        """
        int8 = {"quantization": self.quantization} if self.quantization else {}
        weights: dict[str, Any] = {"random_state": self.random_state, "numpy": np.__version__}
        if self.weights != "random":
            weights = {"file_sha256": digest_file(self.weights_file, "sha256")}
        return {
            "backbone": self.name,
            "scaling": self.scaling,
            "input_size": self.input_size,
            "precision": self.precision,
            **self.taps.recipe,
            **int8,
            "weights": weights,
        }

    @cached_property
    def weights_file(self) -> Path:
        """The file of the weights; Keras downloads that of ImageNet if it is missing."""
        return find_weights_file(self.weights, self.name)

    @cached_property
    def spec(self) -> FeatureSpec:
        """What the features mean. This reads the weights."""
        return FeatureSpec(
            backbone=self.name,
            layer=self.taps.deepest,
            n_features=self.taps.widths[self.taps.deepest],
            weights_sha256=digest_tensors(self._tensors),
            input_size=self.input_size,
            scaling=self.scaling,
            precision=self.precision,
            quantization=self.quantization,
            **self.taps.stated,
        )

    @cached_property
    def _tensors(self) -> Tensors:
        """The weights, until they are digested and compiled."""
        return self.load_tensors()

    def load_tensors(self) -> Tensors:
        """Read or draw the weights, by the paths that they have in Keras."""
        kept: Tensors | None = vars(self).get("_tensors")
        if kept is not None:
            return kept
        weights = self.weights if self.weights == "random" else self.weights_file
        return load_tensors(weights, self.name, self.random_state)

    @cached_property
    def _base(self) -> KerasBase | OpenvinoBase:
        if self.engine == "keras":
            return self._make_keras_base()
        return OpenvinoBase(
            read_graph(self.name),
            self.load_tensors,
            scaling=self.architecture.find_input_scaling(self.scaling),
            input_size=self.input_size,
            precision=self.precision,
            taps=self.taps,
            ranges=Quantization.parse(self.quantization).ranges if self.quantization else None,
        )

    def observe(
        self, batches: Iterable[NDArray[np.uint8]], precision: Precision
    ) -> Iterator[Observed]:
        """Compute features and the ranges that int8 needs, of 8-bit images (n, h, w, 3)."""
        scaling = self.architecture.find_input_scaling(self.scaling)
        layers, load = read_graph(self.name), self.load_tensors
        return observe(layers, load, batches, scaling=scaling, precision=precision, taps=self.taps)

    def _make_keras_base(self) -> KerasBase:
        return KerasBase(
            self.architecture,
            self.load_tensors,
            scaling=self.scaling,
            input_size=self.input_size,
            precision=self.precision,
            device=self.device,
            taps=self.taps,
        )

    @property
    def devices(self) -> list[str]:
        """Names of the devices that compute. Under Keras, this imports the backend."""
        return self._base.devices

    def compile(self, *, n_images: int | None = None) -> tuple[runtime.Forward, ...]:
        """Compile the function from images to features, once for each device or stream.

        What was compiled before is returned again. The weights are released; the spec is kept.

        Parameters
        ----------
        n_images : int or None
            Largest number of images that are expected; None means many. For few images, a method
            that takes seconds to compile is not used. The features are the same to rounding.

        Returns
        -------
        tuple of callable
            Functions from images (n, h, w, 3) to rows (n, d), as `__call__` takes and gives them,
            which can run at the same time. A function is compiled anew for each new n and type.
        """
        compiled = self._base.compile(n_images)
        self._forget_tensors()
        return compiled

    def release(self) -> None:
        """Free what was compiled; it is compiled again when it is needed."""
        vars(self).pop("_base", None)

    def _forget_tensors(self) -> None:
        self.spec  # noqa: B018 - it needs the weights
        vars(self).pop("_tensors", None)

    @property
    def batch_size(self) -> int:
        """Number of images in a batch that computes fast within the memory for stage one."""
        fitting = self._base.batch_pixels // self.input_size**2
        return int(min(max(fitting, 1), _LARGEST_BATCH))

    def build_network(self) -> Any:
        """Build the plain Keras model of the backbone, whatever its engine.

        Returns
        -------
        keras.Model
            From images (n, h, w, 3) in [0, 1] to rows (n, d), as `__call__` gives them, both
            float32.
        """
        return self._make_keras_base().build_network()

    @property
    def base(self) -> Any:
        """The Keras model without scaling and pooling, built anew, whatever the engine."""
        return self._make_keras_base().model

    def __call__(self, images: NDArray[np.float32 | np.uint8]) -> NDArray[np.float32]:
        """Compute the features of a batch.

        Parameters
        ----------
        images : ndarray of shape (n, input_size, input_size, 3), float32 or uint8
            Values in [0, 1], or 8-bit pixels. The function is compiled anew for each new n and
            type.

        Returns
        -------
        ndarray of shape (n, d), float32
            The vectors of the layers side by side, in the order of the network, and then, with
            ``pooling="none"``, the map of the deepest: (h, w, n_features) in one row.
        """
        features = self._base.compute_features(images)
        self._forget_tensors()
        return features

    def compute_maps(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the feature maps of a batch, which are pooled to its features.

        Parameters
        ----------
        images : ndarray of shape (n, input_size, input_size, 3), float32
            Values in [0, 1]. The function is compiled anew for each new n.

        Returns
        -------
        ndarray of shape (n, rows, columns, n_features), float32
            The output of the deepest of `layers`.
        """
        maps = self._base.compute_maps(images)
        self._forget_tensors()
        return maps


def load_backbone(
    name: str = "vgg16",
    *,
    weights: str | os.PathLike[str] = "imagenet",
    scaling: Scaling = "weights",
    input_size: int = 224,
    precision: Precision | Literal["auto"] = "float32",
    random_state: int = 0,
    device: str = "auto",
    engine: Engine | Literal["auto"] = "auto",
    quantization: str = "",
    layers: Sequence[str] = (),
    pooling: Pooling = "mean",
) -> Backbone:
    """Choose a convolutional base and its weights.

    Parameters
    ----------
    name : str, default="vgg16"
        A key of :data:`brainfeat.extraction.architectures.BACKBONES`.
    weights : {"imagenet", "random"} or path-like, default="imagenet"
        ``"imagenet"`` downloads Keras's own file once; ``"random"`` draws He-normal kernels (He et
        al. 2015, https://arxiv.org/abs/1502.01852) from `random_state`; a path is a Keras weights
        file of this base without top, either legacy ``.h5`` or ``.weights.h5``.
    scaling : {"weights", "unit"}, default="weights"
        ``"weights"`` maps [0, 1] to the range that the weights were trained with; ``"unit"`` feeds
        [0, 1].
    input_size : int, default=224
        Height and width in pixels, 32 to 4096.
    precision : {"float32", "bfloat16", "float16", "int8", "auto"}, default="float32"
        Number format of the convolutions; pooling is in float32. ``"auto"`` is bfloat16 where the
        device is natively faster in it (:func:`brainfeat.extraction.engines.choose_precision`) and
        the base is robust to it, and float32 otherwise.
    random_state : int, default=0
        Seed of ``weights="random"``, at least 0.
    device : str, default="auto"
        Where to compute: ``"auto"`` is every GPU, or the processor where there is none; otherwise
        as in :func:`brainfeat.runtime.find_devices`. Each device gets a copy of the base.
    engine : {"auto", "keras", "openvino"}, default="auto"
        What computes the base: Keras on its backend, or OpenVINO on the processor, without
        importing Keras (:func:`brainfeat.extraction.engines.choose_engine`). The features are the
        same to rounding.
    quantization : str, default=""
        For ``precision="int8"``, that of the spec of the features: :func:`brainfeat.extract` takes
        it from training images.
    layers : sequence of str, default=()
        Names in Keras of the layers whose maps become features, in any order; none takes the last.
    pooling : {"mean", "max", "none"}, default="mean"
        How a map becomes a vector: by its mean or its largest value in each channel. ``"none"``
        takes the means and keeps the deepest of the maps beside them.

    Returns
    -------
    Backbone
        A callable from images (n, h, w, 3), float32 in [0, 1] or uint8, to float32 rows (n, d).

    Raises
    ------
    ParameterError
        If the name is unknown, the base does not have a layer, or an option is out of range.
    WeightsError
        If the weights are missing or wrong, which is found when the base is first used.

    Examples
    --------
    >>> backbone = load_backbone("mobilenet", weights="random", input_size=96)
    >>> backbone.architecture.n_features
    1024
    """
    if name not in BACKBONES:
        raise ParameterError(f"unknown backbone {name!r}; expected one of {', '.join(BACKBONES)}")
    if scaling not in SCALINGS:
        raise ParameterError(f"unknown scaling {scaling!r}; expected one of {', '.join(SCALINGS)}")
    if precision not in ("auto", *PRECISIONS):
        raise ParameterError(
            f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}, auto"
        )
    if not isinstance(input_size, int | np.integer) or not 32 <= input_size <= 4096:
        raise ParameterError(f"input size {input_size!r}; expected 32 to 4096 pixels")
    if not isinstance(random_state, int | np.integer) or random_state < 0:
        raise ParameterError(f"random state {random_state!r}; expected an integer of at least 0")
    if (precision == "int8") != bool(quantization):
        raise ParameterError(
            f"precision {precision!r} with quantization {quantization!r:.40}; expected both or "
            "neither of int8 and its quantization, which extract makes and the spec has"
        )
    taps = choose_taps(name, layers, pooling=pooling)
    engine = choose_engine(engine, device=device, precision=precision)
    if precision == "auto" and not BACKBONES[name].robust:
        precision = "float32"
    elif precision == "auto":
        precision = choose_precision(engine, device=device, name=name, input_size=input_size)
    return Backbone(
        name=name,
        weights=os.fspath(weights),
        scaling=scaling,
        input_size=int(input_size),
        precision=precision,
        random_state=int(random_state),
        device=device,
        engine=engine,
        quantization=quantization,
        layers=taps.layers,
        pooling=pooling,
    )
