"""How images of more than 8 bits become [0, 1], and what is said of dark ones."""

import dataclasses
import json
from io import BytesIO

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.halves import SIZE, Blocks
from support.tiffs import make_tiff

from brainfeat import FeatureCache, Predictor, extract, fit_head, read_table
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cli.extract import command as extract_command
from brainfeat.cli.info import command as info
from brainfeat.errors import ImageReadError, ParameterError, SpecMismatchError
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.extraction.sights import Sight, Sights
from brainfeat.readers import read_image
from brainfeat.readers.ranges import scale_values

VALUES = np.array([[0, 1, 900], [4095, 2048, 77]], np.uint16)


def encode(pixels, kind="PNG", **options):
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


FILES = {
    "PNG": encode(VALUES),
    "TIFF": encode(VALUES, "TIFF"),
    "TIFF, LZW": encode(VALUES, "TIFF", compression="tiff_lzw"),
    "TIFF, big-endian": make_tiff(VALUES, 16, 1, order=">"),
    "TIFF, 0 is white": make_tiff(65_535 - VALUES, 16, 0),
}


@pytest.mark.parametrize("name", FILES)
class TestValues:
    def read(self, name, value_range):
        return read_image(BytesIO(FILES[name]), value_range=value_range)[..., 0]

    @pytest.mark.parametrize(
        ("value_range", "white"),
        [("dtype", 65_535), ("image", 4095), ("bits:12", 4095), ("bits:13", 8191),
         ("bits:16", 65_535)],
    )  # fmt: skip
    def test_white_is_that_of_the_range(self, name, value_range, white):
        expected = (VALUES / np.float32(white)).astype(np.float32)
        np.testing.assert_array_equal(self.read(name, value_range), expected)

    def test_a_value_beyond_the_range_is_refused(self, name):
        with pytest.raises(ImageReadError) as caught:
            self.read(name, "bits:11")
        assert caught.value.reason == (
            "a value of 4,095, and 11 bits hold 2,047; choose a range of 12 bits or more, or that"
            " of the image"
        )


@pytest.mark.parametrize("value_range", ["dtype", "image", "bits:12", "bits:8"])
def test_8_bits_are_divided_by_255_in_any_range(value_range):
    pixels = np.array([[0, 51], [102, 100]], np.uint8)
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        image = read_image(BytesIO(encode(pixels, kind)), value_range=value_range)
        np.testing.assert_array_equal(image[..., 0], (pixels / 255).astype(np.float32))


def test_a_black_image_is_black_in_any_range():
    for value_range in ("dtype", "image", "bits:12"):
        values = scale_values(np.zeros((2, 2), np.uint16), value_range, name="x")
        np.testing.assert_array_equal(values, np.zeros((2, 2), np.float32))


def test_16_bit_colours_have_the_range_of_their_type_only():
    data = make_tiff(np.dstack([VALUES] * 3), 16, 2)
    assert read_image(BytesIO(data)).max() == np.float32(15 / 255)
    with pytest.raises(ImageReadError, match="16-bit colours, which are read in the range dtype"):
        read_image(BytesIO(data), value_range="bits:12")


@pytest.mark.parametrize("value_range", ["12", "bits:7", "bits:17", "bits:012", "bits", "", None])
def test_unknown_ranges(value_range, tmp_path):
    with pytest.raises(ParameterError, match=r"expected dtype, image, or bits:N"):
        read_image(BytesIO(FILES["PNG"]), value_range=value_range)
    with pytest.raises(ParameterError, match=r"expected dtype, image, or bits:N"):
        extract(tmp_path, tmp_path / "f.h5", backbone=Blocks(), value_range=value_range)


def test_an_unknown_range_is_a_usage_error(tmp_path):
    result = CliRunner().invoke(extract_command, [str(tmp_path), "-o", "f.h5", "--range", "12"])
    assert result.exit_code == 2
    assert "Invalid value for '--range': range '12'; expected dtype" in result.output


# ------------------------------------------------------------------------------------ stage one


def draw(rng, *, bright):
    pixels = rng.normal(1500, 200, (SIZE, SIZE))
    pixels[: SIZE // 2] += 500 * bright
    pixels[SIZE // 2 :] += 500 * (not bright)
    return pixels.clip(0, 4095).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("deep"), np.random.default_rng(0)
    for name in ("glioma", "notumor"):
        (folder / name).mkdir()
        for i in range(20):
            Image.fromarray(draw(rng, bright=name == "glioma")).save(folder / name / f"{i}.png")
    return folder


def test_the_range_is_part_of_the_spec_and_head_and_prediction_have_it(folder, tmp_path):
    result = extract(folder, tmp_path / "f.h5", backbone=Blocks(), value_range="bits:12")
    assert result.warnings == ()
    table = read_table(folder)
    with FeatureCache.open(result.output) as cache:
        assert cache.spec.value_range == "bits:12"
        image = read_image(table.absolute_path(0), value_range="bits:12")
        expected = Blocks()(preprocess_image(image, size=SIZE)[None])[0]
        np.testing.assert_array_equal(cache.X[0], expected)
    bundle = fit_head(result.output, head="logistic", group_by="none", n_jobs=1)
    assert bundle.spec.value_range == "bits:12"
    predictor = Predictor(bundle, backbone=Blocks())
    paths = [table.absolute_path(0), table.absolute_path(39)]
    answers = predictor.predict(paths)
    held = predictor.predict([Image.open(path) for path in paths])
    assert [answer.decision for answer in answers] == ["glioma", "notumor"]
    assert [answer.probabilities for answer in held] == [answer.probabilities for answer in answers]
    shown = CliRunner().invoke(info, [str(result.output), "--json"])
    assert json.loads(shown.stdout)["spec"]["value_range"] == "bits:12"


def test_another_range_is_another_cache(folder, tmp_path):
    extract(folder, tmp_path / "f.h5", backbone=Blocks(), value_range="bits:12")
    again = extract(folder, tmp_path / "f.h5", backbone=Blocks(), value_range="bits:12")
    assert again.computed == 0
    with pytest.raises(SpecMismatchError, match="value_range: bits:12 and dtype"):
        extract(folder, tmp_path / "f.h5", backbone=Blocks())


def test_a_backbone_of_another_range_is_refused(folder, tmp_path):
    backbone = Blocks()
    backbone.spec = dataclasses.replace(backbone.spec, value_range="image")
    with pytest.raises(SpecMismatchError, match="value_range is 'dtype' for the images and 'image"):
        extract(folder, tmp_path / "f.h5", backbone=backbone)


def test_the_old_meaning_is_left_out_of_the_json():
    spec = FeatureSpec(backbone="b", layer="l", n_features=1, weights_sha256="0" * 64)
    assert "value_range" not in spec.to_json()
    assert FeatureSpec.from_json(spec.to_json()).value_range == "dtype"
    other = FeatureSpec(**{**vars(spec), "value_range": "image"})
    assert '"value_range":"image"' in other.to_json()
    assert FeatureSpec.from_json(other.to_json()) == other


class TestDarkImages:
    def test_are_warned_of_once_with_the_remedy(self, folder, tmp_path):
        result = extract(folder, tmp_path / "f.h5", backbone=Blocks())
        (warning,) = result.warnings
        assert warning.startswith("40 of 40 images of 16 bits are nearly black, with values up to ")
        assert 'extract again with value_range="bits:12", or with value_range="image"' in warning
        assert result.to_dict()["warnings"] == [warning]

    def test_are_not_warned_of_in_another_range(self):
        sights = Sights("image")
        sights.add(Sight(0.01, in_alpha=False))
        assert sights.warnings == ()

    @pytest.mark.parametrize(("dark", "bright", "number"), [(1, 0, 1), (2, 1, 1), (1, 1, 0)])
    def test_are_warned_of_where_they_are_most(self, dark, bright, number):
        sights = Sights("dtype")
        for peak in [0.0625] * dark + [0.5] * bright + [None] * 9:
            sights.add(Sight(peak, in_alpha=False))
        assert len(sights.warnings) == number

    @pytest.mark.parametrize(("peak", "number"), [(8191, 1), (8192, 0)])
    def test_end_at_13_bits(self, peak, number):
        sights = Sights("dtype")
        sights.add(Sight(float(np.float32(peak / 65_535)), in_alpha=False))
        assert len(sights.warnings) == number
