"""The layers of the bases as data against the models of Keras."""

import json
from importlib.resources import files

import pytest

from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.graph import (
    count_flop,
    cut_graph,
    find_channels,
    find_lengths,
    list_maps,
    list_weights,
    read_graph,
)
from tests.support.write_graphs import describe_base


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_a_file_is_what_keras_has(name):
    text = files("brainfeat.extraction").joinpath(f"graphs/{name}.json").read_text("utf-8")
    assert json.loads(text) == describe_base(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_lengths_channels_and_the_layers_with_maps_are_kerass(name):
    """On a size that strides do not divide, too."""
    from brainfeat.extraction.architectures import build_base

    layers = read_graph(name)
    channels, maps = find_channels(layers), list_maps(layers)
    for size in (64, 75):
        lengths = find_lengths(layers, size)
        model = build_base(BACKBONES[name], size, "float32")
        shapes = {layer.name: layer.output.shape for layer in model.layers}
        for layer in maps:
            assert shapes[layer] == (None, lengths[layer], lengths[layer], channels[layer])


@pytest.mark.parametrize("name", BACKBONES)
def test_each_layer_comes_after_its_inputs(name):
    known = set()
    for layer in read_graph(name):
        assert set(layer.inputs) <= known
        known.add(layer.name)
    assert len(known) == len(read_graph(name))


@pytest.mark.parametrize("name", BACKBONES)
def test_the_last_layer_is_the_one_that_is_pooled(name):
    layers = read_graph(name)
    assert layers[-1].name == BACKBONES[name].layer
    assert find_lengths(layers, 224)[layers[-1].name] == 7


def test_a_layer_of_one_value_a_channel_has_no_map():
    maps = list_maps(read_graph("efficientnetb0"))
    assert "block2a_se_expand" not in maps
    assert "block2a_se_excite" in maps
    assert maps[0] == "stem_conv"


def test_a_cut_graph_has_what_its_layers_need():
    layers = read_graph("resnet50")
    cut = cut_graph(layers, ["conv2_block1_add"])
    names = {layer.name for layer in cut}
    assert {"conv2_block1_0_bn", "conv2_block1_3_bn", "conv2_block1_add"} <= names
    assert "conv2_block1_out" not in names
    assert cut_graph(layers, [layers[-1].name]) == layers


def test_no_two_tensors_have_one_path():
    for name in BACKBONES:
        layers = read_graph(name)
        assert len(list_weights(layers)) == sum(len(layer.weights) for layer in layers)


class TestFlop:
    # Of VGG16's convolutions of 3 by 3 on images of 224 by 224: channels in and out, and places.
    VGG16 = (
        *[(3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56)],
        *[(256, 256, 56)] * 2,
        (256, 512, 28),
        *[(512, 512, 28)] * 2,
        *[(512, 512, 14)] * 3,
    )

    def test_vgg16_is_counted_as_by_hand(self):
        by_hand = [2 * 9 * below * above * side**2 for below, above, side in self.VGG16]
        assert list(count_flop(read_graph("vgg16"), 224).values()) == by_hand
        assert sum(by_hand) == pytest.approx(30.7e9, rel=0.01)

    def test_a_depthwise_convolution_counts_each_channel_once(self):
        flop = count_flop(read_graph("mobilenet"), 224)
        assert flop["conv_dw_1"] == 2 * 9 * 32 * 112**2
        assert flop["conv_pw_1"] == 2 * 32 * 64 * 112**2

    def test_what_follows_an_average_is_counted_once(self):
        flop = count_flop(read_graph("efficientnetb0"), 224)
        assert flop["block1a_se_reduce"] == 2 * 32 * 8
