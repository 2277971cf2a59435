"""Layers of a base that become features, and how their maps are pooled."""

from typing import Any

import numpy as np
import pytest

from brainfeat.errors import CacheError, ParameterError
from brainfeat.extraction.backbones import Backbone, load_backbone
from brainfeat.extraction.computed_rows import RowLayout, choose_layout
from brainfeat.extraction.graph import read_graph
from brainfeat.extraction.openvino_graph import build_model
from brainfeat.extraction.taps import choose_taps, read_taps

SIZE = 64
# Of each base, what rewriting changes: wide convolutions, normalizations that are folded, and the
# factor after the normalization of the input.
TAPPED = {
    "vgg16": ("block3_pool", "block4_conv2", "block5_pool"),
    "mobilenet-0.75": ("conv_pw_5", "conv_pw_11_relu"),
    "efficientnetb0": ("block2b_add", "block4a_expand_conv"),
}


def load(name: str = "mobilenet-0.75", **options: Any) -> Backbone:
    return load_backbone(name, **{"weights": "random", "input_size": SIZE, **options})


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)


class TestChoice:
    def test_they_are_in_the_order_of_the_network(self) -> None:
        taps = choose_taps("vgg16", ["block5_pool", "block3_pool"], pooling="mean")
        assert taps.layers == ("block3_pool", "block5_pool")
        assert taps.stated == {
            "pooling": "average",
            "layers": "block3_pool:256,block5_pool:512",
        }

    def test_an_unknown_layer_lists_the_nearest_first(self) -> None:
        with pytest.raises(
            ParameterError,
            match=r"vgg16 has no layer 'block4_pol' with a map; .*: block4_pool, block.* 8 more$",
        ):
            load("vgg16", layers=["block4_pol"])

    @pytest.mark.parametrize(
        ("layers", "pooling", "message"),
        [
            (("block4_pool", "block4_pool"), "mean", "block4_pool is named twice"),
            ("block4_pool", "mean", "expected a sequence of names"),
            ((), "median", "unknown pooling 'median'; expected one of mean, max, none"),
            (("input_layer",), "mean", "no layer 'input_layer' with a map"),
        ],
    )
    def test_what_is_refused(self, layers: Any, pooling: Any, message: str) -> None:
        with pytest.raises(ParameterError, match=message):
            choose_taps("vgg16", layers, pooling=pooling)

    def test_too_many_are_refused(self) -> None:
        layers = [f"conv{block}_block{n}_concat" for block in (3, 4) for n in range(1, 13)]
        layers += [f"conv5_block{n}_concat" for n in range(1, 10)]
        with pytest.raises(ParameterError, match="33 layers; expected at most 32"):
            choose_taps("densenet121", layers, pooling="mean")

    def test_the_last_layer_by_name_is_what_it_always_was(self) -> None:
        named, default = load(layers=["conv_pw_13_relu"]), load()
        assert named.spec == default.spec
        assert named.recipe == default.recipe
        assert "layers" not in default.spec.to_json()

    def test_a_recipe_says_what_is_asked_for(self) -> None:
        recipe = load(layers=["conv_pw_1"], pooling="max").recipe
        assert (recipe["layers"], recipe["pooling"]) == (["conv_pw_1"], "max")

    def test_a_spec_leads_back_to_its_base(self) -> None:
        for options in ({}, {"layers": ("conv_pw_1", "conv_pw_2"), "pooling": "none"}):
            base = load(**options)
            layers, pooling = read_taps(base.spec)
            assert load(layers=layers, pooling=pooling).spec == base.spec
        one = load(layers=("conv_pw_1", "conv_pw_2")).spec.select("conv_pw_1")
        assert load(layers=read_taps(one)[0]).spec == one


class TestFeatures:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", TAPPED)
    def test_they_are_those_of_a_plain_keras_model(self, name: str, images: np.ndarray) -> None:
        from brainfeat.runtime import import_keras

        options = {"layers": TAPPED[name], "pooling": "none", "scaling": "unit"}
        base = load(name, **options)
        whole = base.base
        plain = import_keras().Model(whole.input, [whole.get_layer(n).output for n in TAPPED[name]])
        maps = [np.asarray(values) for values in plain(images)]
        vectors = [values.mean(axis=(1, 2)) for values in maps]
        expected = np.concatenate([*vectors, maps[-1].reshape(2, -1)], axis=1)
        for engine in ("openvino", "keras"):
            found = load(name, **options, engine=engine)(images)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.max())
        np.testing.assert_allclose(
            base.compute_maps(images), maps[-1], rtol=1e-4, atol=1e-4 * maps[-1].max()
        )

    def test_the_largest_value(self, images: np.ndarray) -> None:
        base = load(layers=["conv_pw_6_relu"], pooling="max")
        np.testing.assert_array_equal(base(images), base.compute_maps(images).max(axis=(1, 2)))
        assert base.spec.pooling == "max"

    def test_means_are_the_same_bits_beside_maps(self, images: np.ndarray) -> None:
        rows = load(pooling="none")(images)
        assert rows.shape == (2, 768 + 2 * 2 * 768)
        np.testing.assert_array_equal(rows[:, :768], load()(images))

    def test_layers_after_the_deepest_are_not_computed(self) -> None:
        base = load(layers=["conv_pw_2_relu"])
        model = build_model(
            read_graph(base.name),
            base.load_tensors(),
            base.taps.layers,
            shape=(1, SIZE, SIZE, 3),
            scaling=None,
            winograd=False,
        )
        kinds = [operation.get_type_name() for operation in model.get_ops()]
        assert kinds.count("Convolution") == 3
        assert [*model.outputs[0].shape] == [1, 96, 16, 16]


class TestRows:
    def test_they_are_cut_into_datasets(self) -> None:
        base = load(layers=["conv_pw_6_relu", "conv_pw_13_relu"], pooling="none")
        layout = choose_layout(base.spec, base)
        rows = np.arange(2 * layout.width, dtype=np.float32).reshape(2, -1) / 100
        found = layout.split(rows)
        assert [*found] == ["layers/conv_pw_6_relu", "features", "maps"]
        np.testing.assert_array_equal(found["layers/conv_pw_6_relu"], rows[:, :384])
        np.testing.assert_array_equal(found["features"], rows[:, 384:1152])
        maps = rows[:, 1152:].reshape(2, 2, 2, 768).astype(np.float16)
        np.testing.assert_array_equal(found["maps"], maps)

    @pytest.mark.parametrize(
        ("value", "message"),
        [(np.nan, "not finite"), (np.inf, "not finite"), (-65_536.0, "above 65,504, which float1")],
    )
    def test_what_cannot_be_kept_is_refused(self, value: float, message: str) -> None:
        layout = RowLayout(load(pooling="none").spec, (1, 1))
        rows = np.zeros((3, layout.width), np.float32)
        rows[1, -1] = value
        with pytest.raises(CacheError, match=message):
            layout.split(rows)

    def test_a_function_of_maps_states_their_shape(self) -> None:
        spec = load(pooling="none").spec

        class Function:
            map_shape = (2, 3)

        assert choose_layout(spec, Function()).map_shape == (2, 3)
        with pytest.raises(ParameterError, match="map_shape None; expected the height and width"):
            choose_layout(spec, object())
