"""Styles: what they do to pixels, and whose style a view is given."""

import hashlib
import itertools
import json
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.bands import SIZE, Blocks, describe, draw

from brainfeat.cache.cache import FeatureCache
from brainfeat.cli.main import load_command
from brainfeat.cli.wording import translate
from brainfeat.errors import ParameterError, TableError
from brainfeat.extraction import style_targets
from brainfeat.extraction.augmentation import Augmentation, augment_pixels
from brainfeat.extraction.cropping import CROPS, crop_pixels
from brainfeat.extraction.extractor import extract
from brainfeat.extraction.preprocessing import resize_pixels
from brainfeat.extraction.style_targets import StyleTargets
from brainfeat.extraction.styles import Style, match_histogram, transfer_fourier
from brainfeat.readers import read_pixels

ROWS = [
    "a1.png,glioma,train,,siteA",
    "a2.png,glioma,train,,siteA",
    "b1.png,notumor,train,,siteB",
    "b2.png,glioma,train,,siteB",
    "c1.png,notumor,train,,siteC",
    "t1.png,notumor,test,,siteB",
    "v1.png,notumor,val,,siteD",
]


def noise(seed, shape=(32, 32), high=256):
    return np.random.default_rng(seed).integers(0, high, (*shape, 3), np.uint8)


def swap_amplitudes(pixels, target, beta):
    """Compute x^{s→t} of Yang & Soatto (2020), equations 1 to 3, as they are written there."""
    height, width = pixels.shape[:2]
    rows, columns = np.arange(height) - height // 2, np.arange(width) - width // 2
    mask = (np.abs(rows)[:, None] <= np.floor(beta * height)) & (
        np.abs(columns) <= np.floor(beta * width)
    )
    channels = []
    for own, other in zip(np.moveaxis(pixels, 2, 0), np.moveaxis(target, 2, 0), strict=True):
        source, wanted = (np.fft.fftshift(np.fft.fft2(channel)) for channel in (own, other))
        amplitude = mask * np.abs(wanted) + (1 - mask) * np.abs(source)
        changed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(source))))
        channels.append(np.clip(np.rint(changed.real), 0, 255))
    return np.stack(channels, axis=-1)


class TestFourier:
    @pytest.mark.parametrize("beta", [0.05, 0.2, 0.5])
    @pytest.mark.parametrize("shape", [(32, 32), (31, 33), (30, 17)])
    def test_is_the_formula_of_the_paper(self, shape, beta):
        pixels, target = noise(0, shape), noise(1, shape, high=90)
        expected = swap_amplitudes(pixels, target, beta)
        np.testing.assert_array_equal(transfer_fourier(pixels, target, beta=beta), expected)

    @pytest.mark.parametrize("own", [0, 3])
    def test_grey_and_coloured_images_go_together(self, own):
        grey = np.repeat(noise(2)[..., :1], 3, axis=2)
        pair = (grey, noise(own)) if own else (noise(3), grey)
        np.testing.assert_array_equal(
            transfer_fourier(*pair, beta=0.1), swap_amplitudes(*pair, 0.1)
        )

    def test_a_window_without_a_frequency_leaves_an_image_as_it_is(self):
        pixels = noise(0)
        np.testing.assert_array_equal(transfer_fourier(pixels, noise(1), beta=0.03), pixels)

    def test_a_small_window_changes_less(self):
        pixels, target = noise(0), np.full((32, 32, 3), 128, np.uint8)
        changes = [
            np.abs(transfer_fourier(pixels, target, beta=beta).astype(int) - pixels).mean()
            for beta in (0.04, 0.2, 0.5)
        ]
        assert 0 < changes[0] < changes[1] < changes[2]

    def test_its_own_style_leaves_an_image_as_it_is(self):
        pixels = noise(0)
        np.testing.assert_array_equal(transfer_fourier(pixels, pixels, beta=0.5), pixels)

    def test_an_image_without_phases_takes_them_as_0(self):
        black, target = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 50, np.uint8)
        np.testing.assert_array_equal(transfer_fourier(black, target, beta=0.2), target)


class TestHistogram:
    def test_is_the_definition(self):
        pixels, target = noise(0), noise(1, high=90)
        for own, other, found in zip(
            *(np.moveaxis(image, 2, 0) for image in (pixels, target)),
            np.moveaxis(match_histogram(pixels, target), 2, 0),
            strict=True,
        ):
            values = np.unique(other)
            reached = [(other <= value).mean() for value in values]
            expected = np.interp([(own <= value).mean() for value in range(256)], reached, values)
            np.testing.assert_array_equal(found, np.rint(expected)[own])

    def test_the_histogram_becomes_that_of_the_target(self):
        target = noise(5)
        pixels = np.random.default_rng(1).permutation(target.reshape(-1, 3)).reshape(target.shape)
        np.testing.assert_array_equal(match_histogram(pixels, target), pixels)
        ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
        dark = ramp // 4
        np.testing.assert_array_equal(np.unique(match_histogram(ramp, dark)), np.unique(dark))

    def test_the_order_of_values_stays(self):
        values = match_histogram(noise(0), noise(1))[..., 0].ravel()
        assert (np.diff(values[np.argsort(noise(0)[..., 0].ravel(), kind="stable")]) >= 0).all()


class TestStyle:
    def test_has_one_text(self):
        assert str(Style.parse("fourier:0.050")) == "fourier:0.05"
        assert Style.parse(str(Style.parse("histogram"))) == Style("histogram")

    @pytest.mark.parametrize(
        "text",
        [
            *("", "fourier", "fourier:", "fourier:0", "fourier:0.51", "fourier:nan", "fourier:-1"),
            *("histogram:", "histogram:1", "gan:0.1", "fourier:0.1:2", None),
        ],
    )
    def test_bad_texts(self, text):
        with pytest.raises(ParameterError, match=r"style .*; expected histogram, or fourier:BETA"):
            Style.parse(text)

    @pytest.mark.parametrize("bad", [noise(0, (8, 9)), noise(0, (8, 8)).astype(np.float32)])
    def test_bad_images(self, bad):
        with pytest.raises(ParameterError, match="expected"):
            match_histogram(noise(0, (8, 8)), bad)


class TestRecord:
    def test_has_the_style_and_its_targets(self):
        found = Augmentation(style="fourier:0.10", style_from="source:x", style_targets="0" * 64)
        record = json.loads(json.dumps(found.to_dict()))
        assert record["style"] == "fourier:0.1"
        assert (record["style_from"], record["style_targets"]) == ("source:x", "0" * 64)
        assert Augmentation.from_dict(record) == found

    def test_is_the_earlier_one_without_a_style(self):
        assert list(Augmentation().to_dict()) == ["rotation", "zoom", "flip", "random_state"]

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"style": "fourier:2"}, "style 'fourier:2'; expected"),
            ({"style": "histogram", "style_from": "siteA"}, "style_from 'siteA'; expected source"),
            ({"style": "histogram", "style_from": "source:"}, "style_from 'source:'; expected"),
            ({"style_from": "source:a"}, "is given without a style"),
            ({"style": "histogram", "style_targets": "x"}, "expected 64 hexadecimal digits"),
        ],
    )
    def test_bad_parameters(self, parameters, message):
        with pytest.raises(ParameterError, match=message):
            Augmentation(**parameters)


@pytest.fixture
def table(tmp_path):
    for seed, row in enumerate(ROWS):
        draw(tmp_path / row.split(",")[0], seed)
    return describe(tmp_path, ROWS)


def find_targets(table, *, style="histogram", crop="", read=read_pixels, **options):
    augmentation = Augmentation(style=style, **options)
    return StyleTargets(table, augmentation, read=read, crop=crop, n_jobs=2)


def digest(table, name):
    return hashlib.sha256((table.root / name).read_bytes()).digest()


def grid(path, crop=""):
    return resize_pixels(crop_pixels(np.asarray(Image.open(path).convert("RGB")), crop), size=SIZE)


def name_targets(table, targets, name, views=40, crop=""):
    """Tell whose style the views of an image have, ``""`` for its own."""
    own = grid(table.root / name, crop)
    styled = {
        match_histogram(own, grid(path, crop)).tobytes(): path.name
        for path in table.root.glob("*.png")
        if path.name != name and path.read_bytes().startswith(b"\x89PNG")
    }
    styled[own.tobytes()] = ""
    return [
        styled[targets.restyle(own, sha256=digest(table, name), view=view).tobytes()]
        for view in range(1, views + 1)
    ]


class TestTargets:
    def test_are_training_images_of_other_sources(self, table):
        targets = find_targets(table)
        assert {*name_targets(table, targets, "a1.png")} == {"b1.png", "b2.png", "c1.png"}
        assert {*name_targets(table, targets, "b1.png")} == {"a1.png", "a2.png", "c1.png"}
        assert {*name_targets(table, targets, "c1.png")} == {
            f"{n}.png" for n in ["a1", "a2", "b1", "b2"]
        }

    def test_are_drawn_alike_in_any_order_of_the_table(self, table):
        first = name_targets(table, find_targets(table), "a1.png")
        other = describe(table.root, ROWS[::-1])
        assert name_targets(other, find_targets(other), "a1.png") == first
        assert name_targets(other, find_targets(other, random_state=1), "a1.png") != first

    def test_are_of_one_source_where_it_is_named(self, table):
        targets = find_targets(table, style_from="source:siteB")
        assert {*name_targets(table, targets, "a1.png")} == {"b1.png", "b2.png"}
        assert {*name_targets(table, targets, "b1.png")} == {""}

    def test_are_cropped_as_images_are(self, table):
        picture = np.zeros((60, 60, 3), np.uint8)
        picture[10:50, 10:50] = noise(9, (40, 40)) // 2 + 100
        Image.fromarray(picture).save(table.root / "c1.png")
        crop = CROPS["foreground"]
        targets = find_targets(table, style_from="source:siteC", crop=crop)
        assert {*name_targets(table, targets, "a1.png", crop=crop)} == {"c1.png"}

    def test_contents_of_several_sources_are_none(self, table):
        (table.root / "b1.png").write_bytes((table.root / "a1.png").read_bytes())
        targets = find_targets(table)
        assert {*name_targets(table, targets, "a2.png")} == {"b2.png", "c1.png"}
        assert {*name_targets(table, targets, "a1.png")} == {"c1.png"}

    def test_one_that_cannot_be_decoded_is_passed_over(self, table):
        (table.root / "b1.png").write_bytes(b"no image")
        found = name_targets(table, find_targets(table), "a1.png")
        assert {*found} == {"b2.png", "c1.png"}
        assert name_targets(table, find_targets(table), "a1.png") == found

    def test_one_that_cannot_be_opened_is_none(self, table):
        before = find_targets(table).augmentation.style_targets
        (table.root / "b1.png").unlink()
        targets = find_targets(table)
        assert {*name_targets(table, targets, "a1.png")} == {"b2.png", "c1.png"}
        assert targets.augmentation.style_targets != before

    def test_none_that_can_be_decoded(self, table):
        for name in ("b1.png", "b2.png"):
            (table.root / name).write_bytes(name.encode())
        targets = find_targets(table, style_from="source:siteB")
        with pytest.raises(TableError, match="can be decoded"):
            name_targets(table, targets, "a1.png")

    def test_none_that_can_be_opened(self, table):
        (table.root / "c1.png").unlink()
        with pytest.raises(TableError, match="can be read"):
            find_targets(table, style_from="source:siteC")

    def test_one_that_has_changed_meanwhile(self, table):
        targets = find_targets(table, style_from="source:siteC")
        (table.root / "c1.png").write_bytes((table.root / "b1.png").read_bytes())
        with pytest.raises(TableError, match=r"'c1.png' has changed"):
            name_targets(table, targets, "a1.png")

    def test_those_of_the_record_are_required(self, table):
        known = find_targets(table).augmentation.style_targets
        find_targets(table, style_targets=known)
        with pytest.raises(TableError, match="are not those of style_targets"):
            find_targets(table, style_from="source:siteB", style_targets=known)

    def test_memory_is_bounded_in_threads(self, table, monkeypatch):
        monkeypatch.setattr(style_targets, "_HELD_BYTES", 2 * 256 * 8 * 3)
        read = []

        def count(file, *, name):
            read.append(name)
            return read_pixels(file, name=name)

        targets = find_targets(table, read=count)
        expected = name_targets(table, find_targets(table), "a1.png", views=30)
        found = {}
        threads = [
            threading.Thread(
                target=lambda n=n: found.update({n: name_targets(table, targets, "a1.png", 30)})
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(names == expected for names in found.values())
        assert len(targets._held) <= 2
        assert 3 <= len(read) <= 120

    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            ((",train,", ",,"), {}, "has no splits.*brainfeat split"),
            (("siteA", ""), {}, r"2 of 5 training images have no source \(first: 'a1.png'\)"),
            (("", ""), {"style_from": "source:siteD"}, "'siteD'; expected one of 'siteA', 'siteB'"),
            (("site[ABC]", "x"), {}, r"are of one source \('x'\)"),
            ((",train,", ",val,"), {}, "are of no source"),
        ],
    )
    def test_tables_without_any(self, table, change, options, message):
        import re

        rows = [re.sub(*change, row) for row in ROWS]
        if change[1] == ",,":
            rows = [row.replace(",test,", ",,").replace(",val,", ",,") for row in rows]
        with pytest.raises(TableError, match=message):
            find_targets(describe(table.root, rows), **options)


class TestExtract:
    def extract(self, table, output, **options):
        backbone = Blocks()
        augmentation = Augmentation(**({"style": "histogram"} | options))
        return extract(table, output, backbone=backbone, augment=2, augmentation=augmentation)

    def test_a_view_is_styled_and_then_turned(self, table, tmp_path):
        output = tmp_path / "features.h5"
        self.extract(table, output, style="fourier:0.1")
        augmentation = find_targets(table, style="fourier:0.1").augmentation
        with FeatureCache.open(output) as cache:
            assert cache.augmentation == augmentation.to_dict()
            rows = zip(cache.paths, cache.view, cache.splits, strict=True)
            seen = {(path, view): row for row, (path, view, _) in enumerate(rows)}
            assert {
                split for split, view in zip(cache.splits, cache.view, strict=True) if view
            } == {"train"}
            sha256 = digest(table, "a1.png")
            for view in (1, 2):
                styled = find_targets(table, style="fourier:0.1").restyle(
                    grid(table.root / "a1.png"), sha256=sha256, view=view
                )
                pixels = augment_pixels(
                    styled, sha256=sha256, view=view, augmentation=Augmentation()
                )
                means = (pixels.astype(np.float32) / 255).reshape(8, -1).mean(axis=1)
                np.testing.assert_allclose(cache.X[seen["a1.png", view]], means, rtol=1e-6)

    def test_it_is_another_augmentation_with_other_targets(self, table, tmp_path):
        output = tmp_path / "features.h5"
        assert self.extract(table, output).computed == 7 + 5 * 2
        assert self.extract(table, output).computed == 0
        Image.fromarray(noise(50)).save(table.root / "c2.png")
        more = describe(table.root, [*ROWS, "c2.png,glioma,train,,siteC"])
        assert self.extract(more, output).computed == 1 + 6 * 2
        assert self.extract(more, output, style=None).computed == 6 * 2

    def test_bad_options_are_refused_before_any_work(self, table, tmp_path):
        backbone, output = Blocks(), tmp_path / "features.h5"
        for augment, style, message in (
            (0, "histogram", "pass augment=1"),
            (1, "fourier:0.001", "changes no frequency of images of 32 pixels"),
        ):
            with pytest.raises(ParameterError, match=message):
                extract(
                    table,
                    output,
                    backbone=backbone,
                    augment=augment,
                    augmentation=Augmentation(style=style),
                )
        assert not backbone.batches
        assert not output.exists()
        assert not list(itertools.chain(tmp_path.glob("*.parts")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--style", "gan"), "expected histogram, or fourier:BETA"),
        (("--style-from", "source:a"), "pass --style, too"),
        (("--style-from", "source"), "pass --style, too"),
        (("--style", "histogram"), "pass --augment 1 or more"),
        (("--style", "histogram", "--augment", "1"), "has no splits"),
    ],
)
def test_the_command_names_its_options(table, tmp_path, words, message):
    plain = tmp_path / "plain.csv"
    plain.write_text("path,label\na1.png,glioma\n")
    arguments = [str(plain), "-o", str(tmp_path / "f.h5"), *words]
    result = CliRunner().invoke(load_command("extract"), arguments)
    assert result.exit_code
    assert message in translate(result.exception) + " ".join(result.output.split())
