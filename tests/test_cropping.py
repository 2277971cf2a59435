"""Cropping to the foreground: the rule against plain loops, and where its box is used."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from support.halves import SIZE, Blocks

from brainfeat import FeatureCache, Predictor, extract, fit_head, read_table, stress
from brainfeat.cache.signature import compute_signature
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cli.extract import command as extract_command
from brainfeat.cli.heatmaps import HeatmapFolder
from brainfeat.cli.info import command as info
from brainfeat.errors import ParameterError, SpecMismatchError
from brainfeat.extraction.alterations import Alterations
from brainfeat.extraction.augmentation import Augmentation, augment_pixels
from brainfeat.extraction.cropping import CROPS, crop_pixels, find_box, name_crop
from brainfeat.extraction.int8_calibration import _read_sample
from brainfeat.extraction.preprocessing import preprocess_image, resize_pixels, scale_pixels
from brainfeat.phantoms import CLASS_NAMES, draw_slice
from brainfeat.prediction.export import _describe
from brainfeat.readers import read_pixels
from brainfeat.readers.series import find_inputs
from brainfeat.report import heatmaps

FOREGROUND = CROPS["foreground"]
# Of the drawn slices: a bright rectangle with a dark half, in a black frame.
BOX = (10, 20, 70, 60)
SHAPE = (100, 90)


def as_rgb(grey):
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=2)


def find_box_plainly(pixels):
    """Find the box by the steps of the documentation of the format, in loops."""
    height, width = pixels.shape[:2]
    r, g, b = (pixels[..., channel].astype(int) for channel in range(3))
    grey = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    k = next(k for k in range(1, 10_000) if max(height, width) <= 128 * k)
    rows, columns = -(-height // k), -(-width // k)
    reduced = np.empty((rows, columns), int)
    for i in range(rows):
        for j in range(columns):
            block = grey[i * k : i * k + k, j * k : j * k + k]
            n = block.size
            reduced[i, j] = ((int(block.sum()) + n // 2) * (2**24 // n)) >> 24
    best, threshold = 0.0, 0
    for level in range(256):
        low, high = reduced[reduced <= level], reduced[reduced > level]
        if low.size and high.size:
            distance = low.sum() / low.size - high.sum() / high.size
            variance = float(low.size) * float(high.size) * distance**2
            if variance > best:
                best, threshold = variance, level
    largest = max(_list_regions(reduced > threshold), key=len, default=[])
    if not largest or 100 * len(largest) < 15 * reduced.size:
        return None
    i, j = np.array(largest).T
    top, left = int(i.min()) * k, int(j.min()) * k
    bottom, right = min((int(i.max()) + 1) * k, height), min((int(j.max()) + 1) * k, width)
    above, beside = (bottom - top) * 2 // 100, (right - left) * 2 // 100
    box = (
        max(0, top - above),
        max(0, left - beside),
        min(height, bottom + above),
        min(width, right + beside),
    )
    return None if box == (0, 0, height, width) else box


def _list_regions(bright):
    """List the regions of bright pixels that are joined by their sides, by filling each."""
    left = {(int(i), int(j)) for i, j in np.argwhere(bright)}
    regions = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        region, edge = [start], [start]
        while edge:
            i, j = edge.pop()
            for near in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if near in left:
                    left.remove(near)
                    region.append(near)
                    edge.append(near)
        regions.append(region)
    return regions


IMAGES = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(
    lambda shape: arrays(np.uint8, (*shape, 3), elements=st.sampled_from([0, 3, 80, 200, 255]))
)
BINARY = st.tuples(st.integers(1, 60), st.integers(1, 60)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 255]))
)


class TestBox:
    @given(IMAGES)
    def test_of_any_small_image_is_that_of_plain_loops(self, pixels):
        assert find_box(pixels, FOREGROUND) == find_box_plainly(pixels)

    @pytest.mark.parametrize("name", CLASS_NAMES)
    @pytest.mark.parametrize("size", [96, 224])
    def test_of_phantoms_is_that_of_plain_loops(self, name, size):
        pixels = as_rgb(draw_slice(name, patient=1, level=1, size=size))
        assert find_box(pixels, FOREGROUND) == find_box_plainly(pixels)

    @pytest.mark.parametrize("shape", [(300, 200), (129, 130), (150, 513)])
    def test_of_reduced_colours_is_that_of_plain_loops(self, shape):
        rng = np.random.default_rng(sum(shape))
        pixels = rng.integers(0, 60, (*shape, 3), np.uint8)
        height, width = shape
        pixels[height // 7 : height * 6 // 7, width // 5 : width - 9] += 150
        box = find_box(pixels, FOREGROUND)
        assert box is not None
        assert box == find_box_plainly(pixels)

    @given(BINARY)
    def test_of_a_mirrored_or_turned_image_is_turned_alike(self, grey):
        sizes = sorted(map(len, _list_regions(grey > 0)))
        assume(sizes[-2:] != sizes[-1:] * 2)  # which of two is taken depends on their order
        kept = crop_pixels(as_rgb(grey), FOREGROUND)
        for turn in (np.fliplr, np.flipud, lambda pixels: pixels.swapaxes(0, 1)):
            assert np.array_equal(crop_pixels(turn(as_rgb(grey)), FOREGROUND), turn(kept))

    @given(BINARY)
    def test_a_crop_of_two_levels_is_not_cropped_again(self, grey):
        once = crop_pixels(as_rgb(grey), FOREGROUND)
        assert np.array_equal(crop_pixels(once, FOREGROUND), once)

    def test_a_black_frame_is_cut_off(self):
        pixels = draw(np.random.default_rng(0), bright=True)
        framed = np.pad(pixels, ((3, 9), (8, 14), (0, 0)))
        first, second = (crop_pixels(one, FOREGROUND) for one in (pixels, framed))
        assert np.array_equal(first, second)

    def test_grey_pixels_have_the_box_of_their_rgb(self):
        grey = draw_slice("glioma", patient=0, level=1)
        assert find_box(grey, FOREGROUND) == find_box(as_rgb(grey), FOREGROUND)


WHOLE = {
    "black": np.zeros((50, 40)),
    "white": np.full((50, 40), 255),
    "grey": np.full((300, 400), 7),
    "one pixel": np.zeros((1, 1)),
    "one row": np.zeros((1, 1000)),
    "a bright spot": np.pad(np.full((15, 15), 255), 20),
    "just below 15 %": np.pad(np.full((10, 14), 255), ((11, 10), (9, 9))),
    "a white frame": np.pad(np.zeros((40, 40)), 2, constant_values=255),
}


@pytest.mark.parametrize("name", WHOLE)
def test_without_a_foreground_the_image_stays_whole(name):
    pixels = as_rgb(WHOLE[name])
    assert find_box(pixels, FOREGROUND) is None
    assert crop_pixels(pixels, FOREGROUND) is pixels


def test_from_15_percent_on_it_is_cropped():
    pixels = as_rgb(np.pad(np.full((10, 15), 255), ((15, 15), (5, 5))))  # 150 of 1,000
    assert find_box(pixels, FOREGROUND) == (15, 5, 25, 20)


def test_an_unknown_crop_is_refused():
    pixels = np.zeros((4, 4, 3), np.uint8)
    for text in ("foreground", "foreground threshold=otsu grid=64px least=0.15 margin=0.02"):
        with pytest.raises(ParameterError, match=r"which this version .* does not know"):
            find_box(pixels, text)
    assert [name_crop(text) for text in CROPS.values()] == list(CROPS)


def test_images_are_cropped_before_they_are_resized():
    pixels = draw(np.random.default_rng(0), bright=True)
    expected = resize_pixels(pixels[9:71, 20:60], size=SIZE)
    found = preprocess_image(pixels, size=SIZE, crop=FOREGROUND)
    np.testing.assert_array_equal(found, scale_pixels(expected))
    floats = preprocess_image(scale_pixels(pixels), size=SIZE, crop=FOREGROUND)
    np.testing.assert_array_equal(floats, found)


def draw(rng, *, bright):
    """Draw a rectangle on black, of which the upper half is brighter, or the lower."""
    grey = np.zeros(SHAPE, np.uint8)
    top, left, bottom, right = BOX
    inside = rng.normal(140, 8, (bottom - top, right - left))
    inside[slice(0, 30) if bright else slice(30, 60)] += 40
    grey[top:bottom, left:right] = inside.clip(0, 255)
    return as_rgb(grey)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("framed"), np.random.default_rng(0)
    for split, number in (("Training", 20), ("Testing", 6)):
        for name in ("glioma", "notumor"):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = draw(rng, bright=name == "glioma")
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def cache(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("cropped") / "f.h5"
    return extract(folder, output, backbone=Blocks(), crop="foreground").output


@pytest.fixture(scope="module")
def bundle(cache):
    return fit_head(cache, head="logistic", group_by="none", n_jobs=1)


def list_files(folder):
    table = read_table(folder)
    return [table.absolute_path(row) for row in range(len(table))]


def read(path):
    with Path(path).open("rb") as file:
        return read_pixels(file, name="x")


class TestExtract:
    def test_crops_and_says_so_in_the_spec(self, folder, cache):
        with FeatureCache.open(cache) as opened:
            assert opened.spec.crop == FOREGROUND
            pixels = [read(path) for path in list_files(folder)]
            expected = Blocks()(
                np.stack([preprocess_image(p[9:71, 20:60], size=SIZE) for p in pixels])
            )
            np.testing.assert_array_equal(opened.X, expected)
            # Copies are found as ever: by signatures of whole images.
            signatures = np.stack([compute_signature(one) for one in pixels])
            np.testing.assert_array_equal(opened.signature, signatures)

    def test_views_are_made_of_the_cropped_image(self, folder, tmp_path):
        output = tmp_path / "f.h5"
        extract(folder, output, backbone=Blocks(), crop="foreground", augment=1)
        with FeatureCache.open(output) as opened:
            row = int(np.flatnonzero(opened.view == 1)[0])
            pixels = read(folder / str(opened.paths[row]))
            small = resize_pixels(pixels[9:71, 20:60], size=SIZE)
            sha256 = opened.sha256[row].tobytes()
            view = augment_pixels(small, sha256=sha256, view=1, augmentation=Augmentation())
            expected = Blocks()(scale_pixels(view)[None])[0]
            np.testing.assert_array_equal(opened.X[row], expected)

    def test_counts_images_without_a_foreground(self, tmp_path):
        (tmp_path / "images").mkdir()
        for name, pixels in (
            ("a", draw(np.random.default_rng(1), bright=True)),
            ("b", WHOLE["black"]),
        ):
            Image.fromarray(np.asarray(pixels, np.uint8)).save(tmp_path / "images" / f"{name}.png")
        found = extract(
            tmp_path / "images", tmp_path / "f.h5", backbone=Blocks(), crop="foreground"
        )
        assert (found.rows, found.uncropped, found.to_dict()["uncropped"]) == (2, 1, 1)
        again = extract(
            tmp_path / "images", tmp_path / "f.h5", backbone=Blocks(), crop="foreground"
        )
        assert (again.computed, again.uncropped) == (0, 0)
        whole = extract(tmp_path / "images", tmp_path / "w.h5", backbone=Blocks())
        assert whole.uncropped == 0

    def test_the_command_has_the_option(self, folder, tmp_path):
        (tmp_path / "i").mkdir()
        Image.fromarray(draw(np.random.default_rng(1), bright=True)).save(tmp_path / "i" / "a.png")
        Image.new("L", (20, 20)).save(tmp_path / "i" / "b.png")
        words = [str(tmp_path / "i"), "-o", str(tmp_path / "f.h5"), "--backbone", "mobilenet-0.75"]
        words += ["--weights", "random", "--size", "32", "--crop", "foreground"]
        result = CliRunner().invoke(extract_command, words)
        assert result.exit_code == 0, result.output
        assert "1 image without a foreground to crop to" in result.output
        shown = CliRunner().invoke(info, [str(tmp_path / "f.h5"), "--json"])
        assert json.loads(shown.stdout)["spec"]["crop"] == FOREGROUND

    def test_refuses_an_unknown_crop_before_any_work(self, folder, tmp_path):
        with pytest.raises(
            ParameterError, match="unknown crop 'brain'; expected one of none, fore"
        ):
            extract(folder, tmp_path / "f.h5", backbone=Blocks(), crop="brain")
        assert not any(tmp_path.iterdir())

    def test_int8_is_calibrated_on_cropped_images(self, tmp_path):
        rng = np.random.default_rng(3)
        for i in range(48):
            Image.fromarray(draw(rng, bright=i % 2 == 0)).save(tmp_path / f"{i}.png")
        table = read_table(tmp_path)
        options = {"read": read_pixels, "crop": FOREGROUND, "random_state": 0}
        [found], _ = next(_read_sample(table, np.arange(48), SIZE, **options))
        first = read(table.absolute_path(int(np.random.default_rng(0).permutation(48)[0])))
        np.testing.assert_array_equal(found, resize_pixels(first[9:71, 20:60], size=SIZE))


class TestSpec:
    def test_the_old_meaning_is_left_out_of_the_json(self):
        spec = FeatureSpec(backbone="b", layer="l", n_features=1, weights_sha256="0" * 64)
        assert "crop" not in spec.to_json()
        assert FeatureSpec.from_json(spec.to_json()).crop == ""
        other = dataclasses.replace(spec, crop=FOREGROUND)
        assert other.fingerprint != spec.fingerprint
        assert FeatureSpec.from_json(other.to_json()) == other

    def test_whole_and_cropped_images_are_never_mixed(self, folder, cache, bundle, tmp_path):
        message = r"crop: none and foreground threshold=otsu"
        whole = extract(folder, tmp_path / "whole.h5", backbone=Blocks()).output
        with pytest.raises(SpecMismatchError, match=message):
            extract(folder, whole, backbone=Blocks(), crop="foreground")
        with FeatureCache.open(whole) as opened, pytest.raises(SpecMismatchError, match="crop: "):
            bundle.check_spec(opened.spec)

    def test_a_backbone_of_another_crop_is_refused(self, folder, tmp_path):
        backbone = Blocks()
        backbone.spec = dataclasses.replace(backbone.spec, crop=FOREGROUND)
        with pytest.raises(SpecMismatchError, match="crop is '' for the images and 'foreground"):
            extract(folder, tmp_path / "f.h5", backbone=backbone)


class TestHead:
    def test_crops_at_prediction_as_its_features_were(self, folder, cache, bundle):
        predictor = Predictor(bundle, backbone=Blocks())
        paths = list_files(folder)
        with FeatureCache.open(cache) as opened:
            expected = predictor.answer(opened.X, [str(path) for path in paths])
        found = predictor.predict(paths)
        held = predictor.predict([Image.open(path) for path in paths])
        for answers in (found, held):
            assert [one.probabilities for one in answers] == [one.probabilities for one in expected]

    def test_crops_the_slices_of_a_volume(self, folder, bundle, tmp_path):
        nibabel = pytest.importorskip("nibabel")
        slices = [read(path)[..., 0] for path in list_files(folder)[:3]]
        volume = np.stack(slices, axis=-1).swapaxes(0, 1)[::-1, ::-1].astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii")
        predictor = Predictor(bundle, backbone=Blocks(), window="127.5,255")
        _, *answers = predictor.predict(tmp_path / "v.nii")
        found = [answer.probabilities for answer in answers]
        expected = [one.probabilities for one in predictor.predict(list_files(folder)[:3])]
        assert sorted(map(str, found)) == sorted(map(str, expected))

    def test_is_tried_on_altered_images_that_are_cropped_after(self, folder, tmp_path):
        flips = {}
        for crop in CROPS:
            output = extract(
                folder, tmp_path / f"{crop}.h5", backbone=Blocks(), crop=crop, signature=False
            ).output
            bundle = fit_head(output, head="logistic", group_by="none", n_jobs=1)
            found = stress(bundle, folder, kinds=["padding"], backbone=Blocks())
            flips[crop] = {one.strength: one.flips for one in found.altered}
        # A black frame is cut off again, until the foreground has less than 15 % of the image.
        assert [flips["foreground"][percent] for percent in (5, 10, 20)] == [0, 0, 0]
        assert flips["foreground"][60] > 0
        assert flips["none"][20] > 0

    def test_an_alteration_of_the_resized_image_is_not_cropped_again(self, folder):
        pixels = read(list_files(folder)[0])
        small = resize_pixels(crop_pixels(pixels, FOREGROUND), size=SIZE)
        chosen = Alterations(kinds=["contrast"])
        words = {"sha256": bytes(32), "views": chosen.views}
        whole = dict(chosen.draw(pixels, small, **words))
        cropped = dict(chosen.draw(pixels, small, crop=FOREGROUND, **words))
        assert all(np.array_equal(whole[view], cropped[view]) for view in chosen.views)

    def test_its_heat_maps_lie_where_the_crop_was(self, folder, bundle, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(
            heatmaps,
            "save_heatmap",
            lambda pixels, *_, box, **__: drawn.append((pixels.shape, box)),
        )
        predictor = Predictor(bundle, backbone=Blocks())
        inputs = find_inputs(list_files(folder)[:1])
        with HeatmapFolder(tmp_path, predictor) as pictures:
            for answer in predictor.predict_inputs(inputs, keep_images=True):
                pictures.add(answer)
        assert drawn == [((*SHAPE, 3), (9, 20, 71, 60))]

    def test_an_export_says_that_it_does_not_crop(self, bundle):
        described = _describe(bundle)
        assert described["crop"] == FOREGROUND
        assert "every image is cropped and stretched" in described["input"]
        spec = dataclasses.replace(bundle.spec, crop="")
        assert "crop" not in _describe(dataclasses.replace(bundle, spec=spec))
