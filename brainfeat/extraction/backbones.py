"""The table of convolutional bases, and how one is loaded with its weights."""

import hashlib
import os
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.spec import PRECISIONS, SCALINGS, FeatureSpec, Precision, Scaling
from brainfeat.errors import ParameterError, WeightsError
from brainfeat.extraction.acceleration import accelerate

_URL = "https://storage.googleapis.com/"
_TENSORFLOW = f"{_URL}tensorflow/keras-applications/"

# Pixels of a batch, as a number of images of VGG16's size; docs/benchmarks.md has others' figures.
_BATCH_PIXELS = {
    "float32": 4 * 224**2,
    "bfloat16": 32 * 224**2,
    "float16": 32 * 224**2,
    "gpu": 256 * 224**2,
}
_LARGEST_BATCH = 1024
# So many images of VGG16's size repay, on two cores, the five seconds that Winograd's method takes
# to compile.
_MANY_IMAGES = 200


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table: a base of keras.applications without its classifier.

    Parameters
    ----------
    constructor : str
        Name of the function in ``keras.applications``.
    module : str
        Module of ``keras.applications`` that has its ``preprocess_input``.
    layer : str
        The last layer, whose output is pooled.
    n_features : int
        Channels of that output.
    url, md5 : str
        Keras's own file of ImageNet weights without top, and the checksum that Keras states.
    alpha : float or None
        MobileNet's width multiplier.
    robust : bool
        Whether its features survive bfloat16: a mean cosine to those in float32 of 0.9995 or more
        (docs/benchmarks.md). Those of separable convolutions do not.
    """

    constructor: str
    module: str
    layer: str
    n_features: int
    url: str
    md5: str | None
    alpha: float | None = None
    robust: bool = True


# Files and checksums: keras/src/applications/*.py of Keras 3.15; Keras states no checksum for the
# MobileNet files.
BACKBONES: Mapping[str, Architecture] = {
    "vgg16": Architecture(
        constructor="VGG16",
        module="vgg16",
        layer="block5_pool",
        n_features=512,
        url=f"{_TENSORFLOW}vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="6d6bbae143d832006294945121d1f1fc",
    ),
    "vgg19": Architecture(
        constructor="VGG19",
        module="vgg19",
        layer="block5_pool",
        n_features=512,
        url=f"{_TENSORFLOW}vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="253f8cb515780f3b799900260a226db6",
    ),
    "resnet50": Architecture(
        constructor="ResNet50",
        module="resnet50",
        layer="conv5_block3_out",
        n_features=2048,
        url=f"{_TENSORFLOW}resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="4d473c1dd8becc155b73f8504c6f6626",
    ),
    "efficientnetb0": Architecture(
        constructor="EfficientNetB0",
        module="efficientnet",
        layer="top_activation",
        n_features=1280,
        url=f"{_URL}keras-applications/efficientnetb0_notop.h5",
        md5="50bc09e76180e00e4465e1a485ddc09d",
        robust=False,
    ),
    "densenet121": Architecture(
        constructor="DenseNet121",
        module="densenet",
        layer="relu",
        n_features=1024,
        url=f"{_TENSORFLOW}densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="30ee3e1110167f948a6b9946edeeb738",
    ),
    "mobilenet": Architecture(
        constructor="MobileNet",
        module="mobilenet",
        layer="conv_pw_13_relu",
        n_features=1024,
        url=f"{_TENSORFLOW}mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        md5=None,
        alpha=1.0,
        robust=False,
    ),
    "mobilenet-0.75": Architecture(
        constructor="MobileNet",
        module="mobilenet",
        layer="conv_pw_13_relu",
        n_features=768,
        url=f"{_TENSORFLOW}mobilenet/mobilenet_7_5_224_tf_no_top.h5",
        md5=None,
        alpha=0.75,
        robust=False,
    ),
    "mobilenetv2": Architecture(
        constructor="MobileNetV2",
        module="mobilenet_v2",
        layer="out_relu",
        n_features=1280,
        url=(
            f"{_TENSORFLOW}mobilenet_v2/"
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
        ),
        md5=None,
        alpha=1.0,
        robust=False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen convolutional base that turns images into pooled features.

    Made by :func:`load_backbone`. Nothing heavy happens until the spec is asked for or images
    come: then Keras is imported and the weights are read.

    Parameters
    ----------
    name : str
        A key of :data:`BACKBONES`.
    weights : str
        ``"imagenet"``, ``"random"``, or the path of a Keras weights file.
    scaling, input_size, precision
        As in :class:`brainfeat.cache.spec.FeatureSpec`.
    random_state : int
        Seed of random weights.
    device : str
        As :func:`brainfeat.runtime.find_devices` takes it.
    n_images, volumes
        As in :func:`load_backbone`.

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
    n_images: int | None
    volumes: str = ""

    @property
    def architecture(self) -> Architecture:
        """The row of the table."""
        return BACKBONES[self.name]

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """All that determines the spec, found without Keras where the weights are on disk.

        A cache keeps it, so that a second run over the same images need not load the base to know
        that nothing is missing.
        """
        origin: dict[str, Any]
        if self.weights == "random":
            origin = {"random_state": self.random_state, "numpy": np.__version__}
        else:
            origin = {"file_sha256": _file_digest(self.weights_file, "sha256")}
        recipe = {
            "backbone": self.name,
            "scaling": self.scaling,
            "input_size": self.input_size,
            "precision": self.precision,
            "weights": origin,
        }
        return {**recipe, "volumes": self.volumes} if self.volumes else recipe

    @cached_property
    def weights_file(self) -> Path:
        """The file of the weights; ImageNet's is fetched by Keras where it is not there yet."""
        if self.weights == "imagenet":
            return _imagenet_file(self.architecture)
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise WeightsError(
                f"no weights file {self.weights}; --weights takes imagenet, random, "
                "or the path of a Keras weights file (.h5 or .weights.h5)"
            )
        if path.suffix not in (".h5", ".hdf5"):
            raise WeightsError(
                f"{path.name} is no Keras weights file by its name; expected .h5 or .weights.h5"
            )
        return path

    @cached_property
    def spec(self) -> FeatureSpec:
        """What the features mean; this loads the base."""
        return FeatureSpec(
            backbone=self.name,
            layer=self.architecture.layer,
            n_features=self.architecture.n_features,
            weights_sha256=weights_digest(self.base),
            input_size=self.input_size,
            scaling=self.scaling,
            precision=self.precision,
            volumes=self.volumes,
        )

    @cached_property
    def base(self) -> Any:
        """The Keras model without pooling, on the first of the devices."""
        with runtime.on_device(self.devices[0]):
            base = _build(self.architecture, self.input_size, self.precision)
            if self.weights == "random":
                _randomise(base, self.random_state)
            else:
                _load_weights(base, self.weights_file, self.name)
        base.trainable = False
        return base

    @cached_property
    def devices(self) -> list[str]:
        """The devices, each of which has a copy of the base; this imports the backend."""
        return runtime.find_devices(self.device)

    @cached_property
    def copies(self) -> tuple[runtime.Forward, ...]:
        """The compiled function from images to features, once for each device.

        What is rewritten has weights of its own, so the base is let go of; the spec is kept.
        """
        self.spec  # noqa: B018
        compiled: list[runtime.Forward] = []
        for device in self.devices:
            with runtime.on_device(device):
                base = self.base if not compiled else self._copy_base()
                compiled.append(runtime.compile_forward(self._assemble(base), device))
        vars(self).pop("base")
        return tuple(compiled)

    @cached_property
    def _forward_maps(self) -> runtime.Forward:
        """The compiled function from images to what is pooled, on the first of the devices."""
        self.spec  # noqa: B018
        with runtime.on_device(self.devices[0]):
            model = self._assemble(self.base, pooled=False)
            compiled = runtime.compile_forward(model, self.devices[0])
        vars(self).pop("base")
        return compiled

    @property
    def batch_size(self) -> int:
        """Images of a batch that computes quickly within the memory that stage one may take."""
        kind = "gpu" if self.devices[0].startswith("gpu") else self.precision
        fitting = _BATCH_PIXELS[kind] // self.input_size**2
        return int(min(max(fitting, 1), _LARGEST_BATCH))

    def _copy_base(self) -> Any:
        copy = _build(self.architecture, self.input_size, self.precision)
        copy.set_weights(self.base.get_weights())
        copy.trainable = False
        return copy

    def _assemble(self, base: Any, *, pooled: bool = True) -> Any:
        """Put the scaling before a base and the pooling, in float32, behind it."""
        if runtime.is_rewriting_faster():
            many = self.n_images is None or self.n_images >= _MANY_IMAGES
            winograd = many and runtime.is_winograd_faster(self.devices[0], self.precision)
            base = accelerate(base, winograd=winograd)
        return self._connect(base, pooled=pooled)

    def build_network(self) -> Any:
        """Build a Keras model from images (n, h, w, 3) in [0, 1] to features, nothing rewritten."""
        return self._connect(self.base)

    def _connect(self, base: Any, *, pooled: bool = True) -> Any:
        keras = runtime.import_keras()
        images = keras.Input((self.input_size, self.input_size, 3), dtype="float32")
        scaled = images
        if self.scaling == "weights":
            module = getattr(keras.applications, self.architecture.module)
            scaled = module.preprocess_input(images * 255.0)
            if self.architecture.module == "efficientnet":
                base = _rescale_efficientnet(base)
        maps = keras.ops.cast(base(scaled), "float32")
        return keras.Model(images, keras.ops.mean(maps, axis=(1, 2)) if pooled else maps)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the pooled features of a batch.

        Parameters
        ----------
        images : ndarray of shape (n, input_size, input_size, 3), float32
            Values from 0 to 1. The function is compiled anew for each new n.

        Returns
        -------
        ndarray of shape (n, n_features), float32
        """
        return self.copies[0](images)

    def compute_maps(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the maps whose means are the features of a batch.

        Parameters
        ----------
        images : ndarray of shape (n, input_size, input_size, 3), float32
            Values from 0 to 1. The function is compiled anew for each new n.

        Returns
        -------
        ndarray of shape (n, rows, columns, n_features), float32
            The output of the last layer.
        """
        return self._forward_maps(images)


def load_backbone(
    name: str = "vgg16",
    *,
    weights: str | os.PathLike[str] = "imagenet",
    scaling: Scaling = "weights",
    input_size: int = 224,
    precision: Precision | Literal["auto"] = "float32",
    random_state: int = 0,
    device: str = "auto",
    n_images: int | None = None,
    volumes: str = "",
) -> Backbone:
    """Choose a convolutional base and its weights.

    Parameters
    ----------
    name : str
        A key of :data:`BACKBONES`.
    weights : {"imagenet", "random"} or path-like
        ``"imagenet"`` fetches Keras's own file once; ``"random"`` draws He-normal kernels (He et
        al. 2015, https://arxiv.org/abs/1502.01852) from `random_state`; a path is a Keras weights
        file of this base without top, legacy ``.h5`` or ``.weights.h5``.
    scaling : {"weights", "unit"}
        ``"weights"`` maps 0–1 to what the weights were trained with; ``"unit"`` feeds 0–1.
    input_size : int
        Height and width in pixels, at least 32.
    precision : {"float32", "bfloat16", "float16", "auto"}
        What the convolutions compute in; pooling is in float32. ``"auto"`` is bfloat16 where the
        device is natively quicker in it (:func:`brainfeat.runtime.choose_precision`) and the base
        is robust to it, else float32; to find out, it imports the backend.
    random_state : int
        Seed of ``weights="random"``.
    device : str
        Where it computes: ``"auto"`` is every GPU, or the processor where there is none; others as
        :func:`brainfeat.runtime.find_devices` takes them. Each device has a copy of the base.
    n_images : int or None
        How many images it will see at most: for few, it skips what takes seconds to compile. The
        features are the same to rounding. None is many.
    volumes : str
        How the images were made of volumes, for the spec.

    Returns
    -------
    Backbone
        A callable from float32 images (n, h, w, 3) in [0, 1] to float32 features (n, d).

    Raises
    ------
    ParameterError
        The name is unknown or an option is out of range.
    WeightsError
        The weights are missing or wrong; this is found when the base is first used.
    """
    if name not in BACKBONES:
        raise ParameterError(f"unknown backbone {name!r}; there are {', '.join(BACKBONES)}")
    if scaling not in SCALINGS:
        raise ParameterError(f"unknown scaling {scaling!r}; there are {', '.join(SCALINGS)}")
    if precision == "auto":
        robust = BACKBONES[name].robust
        precision = runtime.choose_precision(device) if robust else "float32"
    if precision not in get_args(Precision):
        raise ParameterError(
            f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}, auto"
        )
    if not isinstance(input_size, int | np.integer) or not 32 <= input_size <= 4096:
        raise ParameterError(f"input size {input_size!r}; expected 32 to 4096 whole pixels")
    if not isinstance(random_state, int | np.integer) or random_state < 0:
        raise ParameterError(f"random state {random_state!r}; expected a whole number from 0")
    return Backbone(
        name=name,
        weights=os.fspath(weights),
        scaling=scaling,
        input_size=int(input_size),
        precision=precision,
        random_state=int(random_state),
        device=device,
        n_images=n_images,
        volumes=volumes,
    )


def weights_digest(model: Any) -> str:
    """Return the SHA-256 over a model's weight tensors: name, dtype, shape and bytes, by name."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(_tensors(model).items()):
        values = np.asarray(tensor)
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        hasher.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        hasher.update(values.tobytes())
    return hasher.hexdigest()


def local_imagenet_file(name: str) -> Path:
    """Return where Keras keeps, or would keep, the ImageNet weights of a base."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return home / "models" / BACKBONES[name].url.rsplit("/", 1)[1]


def _build(architecture: Architecture, input_size: int, precision: Precision) -> Any:
    keras = runtime.import_keras()
    constructor = getattr(keras.applications, architecture.constructor)
    width = {} if architecture.alpha is None else {"alpha": architecture.alpha}
    shape = (input_size, input_size, 3)
    with runtime.layer_precision(precision):
        return constructor(include_top=False, weights=None, input_shape=shape, **width)


def _rescale_efficientnet(base: Any) -> Any:
    """Add the layer that Keras puts behind the normalization for its ImageNet weights alone.

    The original network divided by the variance where Keras divides by the deviation; see
    https://github.com/tensorflow/tensorflow/issues/49930.
    """
    keras = runtime.import_keras()
    normalized = base.get_layer("stem_conv_pad").input
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    scaled = keras.layers.Rescaling((deviation**-0.5).tolist())(normalized)
    return keras.Model(base.input, keras.Model(normalized, base.output)(scaled))


def _tensors(model: Any) -> dict[str, Any]:
    # A layer that Keras names by itself is numbered by how many there are in the process.
    return {
        re.sub(r"^normalization_\d+/", "normalization/", variable.path): variable
        for variable in model.variables
        if "seed_generator" not in variable.path
    }


def _randomise(model: Any, random_state: int) -> None:
    for name, variable in _tensors(model).items():
        if len(variable.shape) < 2:
            continue
        digest = hashlib.sha256(name.encode()).digest()
        rng = np.random.default_rng([random_state, *digest])
        depthwise = variable.shape[-1] == 1
        fan_in = np.prod(variable.shape[:2] if depthwise else variable.shape[:-1])
        variable.assign(rng.standard_normal(variable.shape, np.float32) * np.sqrt(2.0 / fan_in))


def _load_weights(model: Any, path: Path, name: str) -> None:
    before = weights_digest(model)
    try:
        with warnings.catch_warnings():
            # Keras warns of each layer that a file lacks before it raises.
            warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
            model.load_weights(str(path))
    except (ValueError, OSError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(":") or repr(error)
        raise WeightsError(
            f"{path.name} holds no weights of {name} without top ({reason}); "
            f"pass a Keras weights file that was saved from that base"
        ) from error
    if weights_digest(model) == before:
        raise WeightsError(f"{path.name} changed no weight of {name}; is it a weights file?")


def _imagenet_file(architecture: Architecture) -> Path:
    name = next(key for key, value in BACKBONES.items() if value is architecture)
    path = local_imagenet_file(name)
    checksum = f" (MD5 {architecture.md5})" if architecture.md5 else ""
    if not path.is_file():
        path = _download(architecture.url, path, architecture.md5, checksum)
    if architecture.md5 and _file_digest(path, "md5") != architecture.md5:
        raise WeightsError(
            f"{path} is damaged: its MD5 is not {architecture.md5}; "
            "remove it so that it is fetched again, or pass another file with --weights PATH"
        )
    return path


def _download(url: str, path: Path, md5: str | None, checksum: str) -> Path:
    """Let Keras fetch a file; where its own folder is read-only, Keras takes another."""
    keras = runtime.import_keras()
    home, folder = path.parent.parent, path.parent.name
    try:
        with redirect_stdout(sys.stderr):
            fetched = keras.utils.get_file(
                path.name, url, cache_dir=str(home), cache_subdir=folder, file_hash=md5
            )
    except Exception as error:  # get_file raises it plain
        raise WeightsError(
            f"the ImageNet weights {path.name}{checksum} are not here and could not be fetched "
            f"from {url}: {error}; pass a copy with --weights PATH, or --weights random to go on "
            "without pretrained features"
        ) from error
    return Path(fetched)


def _file_digest(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
