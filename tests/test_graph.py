"""The layers of the bases as data against the models of Keras."""

import json
from importlib.resources import files

import pytest

from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.graph import count_flop, find_lengths, list_weights, read_graph
from tests.support.write_graphs import describe_base


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_a_file_is_what_keras_has(name):
    text = files("brainfeat.extraction").joinpath(f"graphs/{name}.json").read_text("utf-8")
    assert json.loads(text) == describe_base(name)


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
