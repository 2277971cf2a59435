"""A base rewritten for inference gives the features of the base that it was."""

import numpy as np
import pytest

from brainfeat import runtime
from brainfeat.extraction.acceleration import accelerate
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.weights import digest_tensors
from brainfeat.extraction.winograd import transform_kernel

SIZE = 32


@pytest.fixture(scope="module")
def keras():
    return runtime.import_keras()


def draw_images(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def draw_weights(model, seed=0):
    """Set every weight of a model to a value that matters, also those of its normalizations."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape, name = tuple(variable.shape), variable.path.rpartition("/")[2]
        if len(shape) > 1:
            fan_in = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])
            variable.assign(rng.standard_normal(shape) * np.sqrt(2 / fan_in))
        elif name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 2.0, shape))
        elif name in ("beta", "bias", "moving_mean"):
            variable.assign(rng.normal(0, 0.2, shape))


def assert_same(actual, expected, tolerance=1e-4):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert expected.std() > 0
    np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).mean()
    )


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def digest(base):
    """Digest the weights of a Keras model."""
    return digest_tensors({variable.path: np.asarray(variable) for variable in base.variables})


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_base_gives_the_same_maps(name):
    base = load_backbone(name, weights="random", input_size=SIZE).base
    draw_weights(base)
    before = digest(base)
    images = draw_images(2, SIZE, SIZE, 3)
    expected = base(images, training=False).numpy()
    maps = accelerate(base, winograd=False)(images, training=False).numpy()
    # By the norm: fifty layers of random weights make some single values ten times less exact.
    assert np.linalg.norm(maps - expected) < 1e-4 * np.linalg.norm(expected)
    assert digest(base) == before


@pytest.mark.slow
def test_maps_of_a_large_image_are_the_same():
    base = load_backbone("vgg16", weights="random", input_size=224).base
    images = draw_images(1, 224, 224, 3)
    rewritten = accelerate(base, winograd=True)
    assert_same(
        rewritten(images, training=False).numpy().mean(axis=(1, 2)),
        base(images, training=False).numpy().mean(axis=(1, 2)),
    )


def test_where_there_is_nothing_to_rewrite_it_is_the_base_itself():
    base = load_backbone("vgg16", weights="random", input_size=SIZE).base
    assert accelerate(base, winograd=True) is base


class TestFolding:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "left"),
        [("mobilenet", 0), ("mobilenetv2", 0), ("resnet50", 0), ("densenet121", 62)],
    )
    def test_a_normalization_behind_a_convolution_is_gone(self, name, left):
        """DenseNet has most of its normalizations before a convolution, where they stay."""
        base = load_backbone(name, weights="random", input_size=SIZE).base
        rewritten = kinds(accelerate(base, winograd=False))
        assert "BatchNormalization" in kinds(base)
        assert rewritten.count("BatchNormalization") == left

    @pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
    @pytest.mark.parametrize("use_bias", [False, True])
    @pytest.mark.parametrize("depthwise", [False, True])
    def test_every_kind_of_normalization(self, keras, options, use_bias, depthwise):
        layers = keras.layers
        inputs = keras.Input((6, 6, 4))
        if depthwise:
            hidden = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=use_bias)(inputs)
        else:
            hidden = layers.Conv2D(5, 3, use_bias=use_bias)(inputs)
        base = keras.Model(inputs, layers.BatchNormalization(**options)(hidden))
        draw_weights(base)
        images = draw_images(2, 6, 6, 4)
        rewritten = accelerate(base, winograd=False)
        assert "BatchNormalization" not in kinds(rewritten)
        assert_same(rewritten(images), base(images, training=False), 1e-5)

    def test_a_convolution_that_another_layer_reads_too_keeps_its_output(self, keras):
        layers = keras.layers
        inputs = keras.Input((6, 6, 4))
        maps = layers.Conv2D(4, 3)(inputs)
        base = keras.Model(inputs, layers.Add()([maps, layers.BatchNormalization()(maps)]))
        draw_weights(base)
        images = draw_images(2, 6, 6, 4)
        rewritten = accelerate(base, winograd=False)
        assert "BatchNormalization" in kinds(rewritten)
        assert_same(rewritten(images), base(images, training=False), 1e-5)


class TestWinograd:
    @pytest.fixture(autouse=True)
    def _for_little_work_too(self, monkeypatch):
        monkeypatch.setattr("brainfeat.extraction.winograd.LEAST_FLOP", 0)

    @pytest.mark.parametrize(
        ("shape", "activation"),
        [
            *(((1, 1), "relu"), ((2, 3), "relu"), ((4, 4), "relu"), ((9, 16), "relu")),
            *(((14, 7), "relu"), ((14, 7), None)),
        ],
    )
    def test_maps_of_every_size_are_the_convolutions(self, keras, shape, activation):
        inputs = keras.Input((*shape, 128))
        convolution = keras.layers.Conv2D(160, 3, padding="same", activation=activation)
        base = keras.Model(inputs, convolution(inputs))
        draw_weights(base)
        rewritten = accelerate(base, winograd=True)
        assert "WinogradConv2D" in kinds(rewritten)
        images = draw_images(3, *shape, 128)
        assert_same(rewritten(images), base(images))

    @pytest.mark.slow
    @pytest.mark.parametrize(("size", "number"), [(224, 10), (112, 5), (64, 0)])
    def test_it_is_for_much_work(self, monkeypatch, size, number):
        monkeypatch.undo()
        base = load_backbone("vgg16", weights="random", input_size=size).base
        assert kinds(accelerate(base, winograd=True)).count("WinogradConv2D") == number

    def test_it_takes_the_place_of_vgg16s_wide_convolutions(self):
        base = load_backbone("vgg16", weights="random", input_size=SIZE).base
        rewritten = accelerate(base, winograd=True)
        replaced = [
            layer.name for layer in rewritten.layers if type(layer).__name__ == "WinogradConv2D"
        ]
        wide = [layer.name for layer in base.layers if "_conv" in layer.name][3:]
        assert replaced == wide
        assert "WinogradConv2D" not in kinds(accelerate(base, winograd=False))

    @pytest.mark.parametrize(
        "options",
        [
            {"strides": 2, "padding": "same"},
            {"padding": "valid"},
            {"dilation_rate": 2, "padding": "same"},
            {"groups": 2, "padding": "same"},
            {"kernel_size": 5, "padding": "same"},
            {"filters": 64, "padding": "same"},
        ],
    )
    def test_other_convolutions_stay(self, keras, options):
        inputs = keras.Input((8, 8, 128))
        options = {"filters": 128, "kernel_size": 3, **options}
        base = keras.Model(inputs, keras.layers.Conv2D(**options)(inputs))
        draw_weights(base)
        assert accelerate(base, winograd=True) is base

    def test_the_transform_of_a_kernel_that_copies(self):
        """A kernel of one in its middle is, transformed, the outer product of its columns."""
        kernel = np.zeros((3, 3, 1, 1), np.float32)
        kernel[1, 1] = 1
        column = np.array([0, -1 / 6, 1 / 6, 1 / 12, -1 / 12, 0])
        expected = np.outer(column, column).reshape(36, 1, 1)
        np.testing.assert_allclose(transform_kernel(kernel), expected, rtol=1e-6)
