"""The convolutional bases to choose from: where Keras has each one and its ImageNet weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from brainfeat import runtime
from brainfeat.cache.spec import Precision, Scaling

_URL = "https://storage.googleapis.com/"
_TENSORFLOW = f"{_URL}tensorflow/keras-applications/"


class InputScaling(NamedTuple):
    """How pixels in [0, 1] become the input that the weights were trained with.

    Attributes
    ----------
    factor, offset : tuple of float
        By channel, in the order of the input: pixels × factor + offset.
    reverse : bool
        Whether the input is BGR, in place of RGB.
    normalized_factor : tuple of float
        What a layer of normalization is followed by, by channel, as in `rescale_efficientnet`.
    """

    factor: tuple[float, ...]
    offset: tuple[float, ...]
    reverse: bool = False
    normalized_factor: tuple[float, ...] = (1.0, 1.0, 1.0)


_DEVIATION = (0.229, 0.224, 0.225)
_MEAN = (0.485, 0.456, 0.406)
_CAFFE = InputScaling((255.0,) * 3, (-103.939, -116.779, -123.68), reverse=True)
_TWICE = InputScaling((2.0,) * 3, (-1.0,) * 3)
# By the module of keras.applications whose `preprocess_input` this is.
_INPUT_SCALINGS: Mapping[str, InputScaling] = {
    "vgg16": _CAFFE,
    "vgg19": _CAFFE,
    "resnet50": _CAFFE,
    "densenet": InputScaling(
        tuple(1 / deviation for deviation in _DEVIATION),
        tuple(-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)),
    ),
    "mobilenet": _TWICE,
    "mobilenet_v2": _TWICE,
    "efficientnet": InputScaling(
        (255.0,) * 3,
        (0.0,) * 3,
        normalized_factor=tuple(deviation**-0.5 for deviation in _DEVIATION),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A base of keras.applications without its classifier.

    Parameters
    ----------
    constructor : str
        Name of its function in ``keras.applications``.
    module : str
        The module of ``keras.applications`` that has its ``preprocess_input``.
    layer : str
        Name of the last layer, whose output is pooled.
    n_features : int
        Number of channels of that output.
    url, md5 : str
        Keras's own file of ImageNet weights without top, and its checksum if Keras states one.
    alpha : float or None
        Width multiplier of a MobileNet.
    robust : bool
        Whether its features are robust to bfloat16: their mean cosine similarity to features in
        float32 is 0.9995 or more (docs/benchmarks.md). Bases of separable convolutions are not.
    """

    constructor: str
    module: str
    layer: str
    n_features: int
    url: str
    md5: str | None
    alpha: float | None = None
    robust: bool = True

    def find_input_scaling(self, scaling: Scaling) -> InputScaling | None:
        """Find how pixels in [0, 1] become its input; None if they stay what they are."""
        return _INPUT_SCALINGS[self.module] if scaling == "weights" else None


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


def build_base(architecture: Architecture, input_size: int, precision: Precision) -> Any:
    """Build a base with the initial weights of Keras.

    Parameters
    ----------
    architecture : Architecture
    input_size : int
        Height and width in pixels.
    precision : {"float32", "bfloat16", "float16"}
        Number format of its layers; the variables are float32.

    Returns
    -------
    keras.Model
        From scaled images (n, input_size, input_size, 3) to feature maps.
    """
    keras = runtime.import_keras()
    constructor = getattr(keras.applications, architecture.constructor)
    width = {} if architecture.alpha is None else {"alpha": architecture.alpha}
    shape = (input_size, input_size, 3)
    with runtime.layer_precision(precision):
        return constructor(include_top=False, weights=None, input_shape=shape, **width)


def rescale_efficientnet(base: Any) -> Any:
    """Add the layer that Keras puts after the normalization for its ImageNet weights only.

    The original network divided by the variance, and Keras divides by the standard deviation; see
    https://github.com/tensorflow/tensorflow/issues/49930.
    """
    keras = runtime.import_keras()
    normalized = base.get_layer("stem_conv_pad").input
    factor = _INPUT_SCALINGS["efficientnet"].normalized_factor
    scaled = keras.layers.Rescaling(list(factor))(normalized)
    return keras.Model(base.input, keras.Model(normalized, base.outputs)(scaled))
