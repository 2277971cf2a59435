"""Bases computed by Keras on its backend: on GPUs, and on a processor without OpenVINO."""

from collections.abc import Callable
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.spec import Precision, Scaling
from brainfeat.extraction.acceleration import accelerate
from brainfeat.extraction.architectures import Architecture, build_base, rescale_efficientnet
from brainfeat.extraction.taps import Taps
from brainfeat.extraction.weight_files import Tensors
from brainfeat.extraction.weights import fill_base

# Pixels of a batch, as a number of images of VGG16's size; docs/benchmarks.md has measurements.
_BATCH_PIXELS = {
    "float32": 4 * 224**2,
    "bfloat16": 32 * 224**2,
    "float16": 32 * 224**2,
    "gpu": 256 * 224**2,
}
# From this number of images of VGG16's size on, the five seconds that Winograd's method takes to
# compile on two cores are repaid.
_MANY_IMAGES = 200


class KerasBase:
    """A base that Keras computes.

    Parameters
    ----------
    architecture : Architecture
        The base.
    load : callable
        Returns its weights by path.
    scaling, input_size, precision
        As in :class:`brainfeat.cache.spec.FeatureSpec`.
    device : str
        As in :func:`brainfeat.runtime.find_devices`.
    taps : Taps
        Which layers become features, and how.
    """

    def __init__(
        self,
        architecture: Architecture,
        load: Callable[[], Tensors],
        *,
        scaling: Scaling,
        input_size: int,
        precision: Precision,
        device: str,
        taps: Taps,
    ) -> None:
        self._architecture, self._load = architecture, load
        self._scaling, self._input_size, self._precision = scaling, input_size, precision
        self._device, self._taps = device, taps
        # By whether Winograd's method is used.
        self._compiled: dict[bool, tuple[runtime.Forward, ...]] = {}

    @cached_property
    def model(self) -> Any:
        """The Keras model of the whole base without pooling, on the first of the devices."""
        with runtime.on_device(self.devices[0]):
            return self._build()

    def _build(self) -> Any:
        model = build_base(self._architecture, self._input_size, self._precision)
        fill_base(model, self._load())
        model.trainable = False
        return model

    @cached_property
    def devices(self) -> list[str]:
        """Names of the devices, each of which gets a copy of the base. This imports the backend."""
        return runtime.find_devices(self._device)

    @property
    def batch_pixels(self) -> int:
        """Number of pixels in a batch that computes fast within the memory for stage one."""
        return _BATCH_PIXELS["gpu" if self.devices[0].startswith("gpu") else self._precision]

    def compile(self, n_images: int | None) -> tuple[runtime.Forward, ...]:
        """Compile the function from images to features, once for each device.

        What was compiled before is returned again. The rewritten model has weights of its own, so
        the base is released.
        """
        few = n_images is not None and n_images < _MANY_IMAGES
        winograd = not few and runtime.is_winograd_faster(self.devices[0], self._precision)
        if winograd not in self._compiled:
            self._compiled[winograd] = self._compile_copies(winograd=winograd)
        return self._compiled[winograd]

    def _compile_copies(self, *, winograd: bool) -> tuple[runtime.Forward, ...]:
        compiled: list[runtime.Forward] = []
        for device in self.devices:
            with runtime.on_device(device):
                base = self._build() if compiled else self.model
                model = self._connect(_rewrite(self._tap(base), winograd=winograd))
                compiled.append(runtime.compile_forward(model, device))
        vars(self).pop("model")
        return tuple(compiled)

    def compute_features(self, images: runtime.Pixels) -> NDArray[np.float32]:
        """Compute rows (n, d), as `Backbone.compile` gives them, of images (n, h, w, 3)."""
        compiled = next(iter(self._compiled.values()), None) or self.compile(None)
        return compiled[0](images)

    def compute_maps(self, images: runtime.Pixels) -> NDArray[np.float32]:
        """Compute the maps (n, h, w, d) of the deepest layer, of images (n, h, w, 3)."""
        return self._forward_maps(images)

    @cached_property
    def _forward_maps(self) -> runtime.Forward:
        """The compiled function from images to maps, on the first device.

        It is rewritten as the features were, if they were compiled before.
        """
        default = runtime.is_winograd_faster(self.devices[0], self._precision)
        winograd = next(iter(self._compiled), default)
        with runtime.on_device(self.devices[0]):
            base = _rewrite(self._tap(self.model), winograd=winograd)
            model = self._connect(base, pooled=False)
            compiled = runtime.compile_forward(model, self.devices[0])
        vars(self).pop("model")
        return compiled

    def build_network(self) -> Any:
        """Build the plain Keras model from images to rows, without any rewriting."""
        return self._connect(self._tap(self.model))

    def _tap(self, base: Any) -> Any:
        """Return the part of a base that the layers need, with their maps as its outputs."""
        outputs = [base.get_layer(layer).output for layer in self._taps.layers]
        return runtime.import_keras().Model(base.input, outputs)

    def _connect(self, base: Any, *, pooled: bool = True) -> Any:
        """Put the scaling before a base, and the pooling in float32 after it."""
        keras = runtime.import_keras()
        with runtime.layer_precision("float32"):
            images = keras.Input((self._input_size, self._input_size, 3), dtype="float32")
            scaled = images
            if self._scaling == "weights":
                module = getattr(keras.applications, self._architecture.module)
                scaled = module.preprocess_input(images * 255.0)
                if self._architecture.module == "efficientnet":
                    base = rescale_efficientnet(base)
            found = base(scaled)
            listed = found if isinstance(found, list) else [found]
            maps = [keras.ops.cast(values, "float32") for values in listed]
            return keras.Model(images, self._pool(maps) if pooled else maps[-1])

    def _pool(self, maps: list[Any]) -> Any:
        """Pool maps (n, h, w, d), and put the vectors, and a map, side by side."""
        ops = runtime.import_keras().ops
        pool = ops.max if self._taps.pooling == "max" else ops.mean
        columns = [pool(values, axis=(1, 2)) for values in maps]
        if self._taps.pooling == "none":
            columns.append(ops.reshape(maps[-1], (-1, prod(maps[-1].shape[1:]))))
        return columns[0] if len(columns) == 1 else ops.concatenate(columns, axis=1)


def _rewrite(base: Any, *, winograd: bool) -> Any:
    if not runtime.is_rewriting_faster():
        return base
    with runtime.layer_precision("float32"):
        return accelerate(base, winograd=winograd)
