"""predict: the decision and its reasons, what is refused, and what a person reads."""

import csv
import dataclasses
import io
import json
import os
import shutil
from hashlib import sha256

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps
from support.halves import CLASSES, SIZE, Blocks, draw

from brainfeat import Predictor, extract, fit_head, predict, read_table
from brainfeat.cli.predict import command
from brainfeat.errors import BundleError, CacheError, ParameterError, SpecMismatchError
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction import images as prediction_images
from brainfeat.prediction.answers import NOTICE, Prediction
from brainfeat.prediction.description import describe
from brainfeat.readers import raster, read_image
from brainfeat.readers.series import find_inputs


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("slices"), np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(240):
            # Some are of the other class by their looks: a head has reason to doubt.
            looks = bool(place) if number % 10 else not place
            draw(rng, bright=looks, doubtful=number % 7 == 0).save(
                folder / name / f"{number:03}.png"
            )
    return folder


@pytest.fixture(scope="module")
def bundle(slices, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache") / "features.h5"
    extract(read_table(slices), cache, backbone=Blocks())
    return fit_head(cache, head="logistic", group_by="none", n_jobs=1)


@pytest.fixture
def predictor(bundle):
    return Predictor(bundle, backbone=Blocks())


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(5)
    draw(rng, bright=False).save(tmp_path / "clear.png")
    draw(rng, bright=True, doubtful=True).save(tmp_path / "doubtful.png")
    coarse = rng.integers(0, 256, (8, 8), dtype=np.uint8).repeat(SIZE // 8, 0).repeat(SIZE // 8, 1)
    Image.fromarray(coarse).save(tmp_path / "noise.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    return tmp_path


def test_each_image_has_its_decision(predictor, images):
    clear, doubtful, noise, broken = predictor.predict(
        [images / name for name in ("clear.png", "doubtful.png", "noise.png", "broken.jpg")]
    )
    assert clear.decision == "glioma"
    assert clear.prediction_set == ("glioma",)
    assert clear.error is None
    assert not clear.out_of_distribution.flagged
    assert doubtful.decision == "uncertain"
    assert set(doubtful.prediction_set) == {"glioma", "notumor"}
    assert noise.decision == "out-of-distribution"
    assert noise.out_of_distribution.score > noise.out_of_distribution.threshold
    assert broken.decision is None
    assert broken.error == "not a JPEG, PNG, TIFF, BMP, GIF or WebP image"
    assert broken.to_dict() == {
        "path": str(images / "broken.jpg"),
        "frame": None,
        "error": "not a JPEG, PNG, TIFF, BMP, GIF or WebP image",
    }


def test_probabilities_are_the_calibrated_ones_of_the_bundle(predictor, bundle, images):
    (found,) = predictor.predict([images / "clear.png"])
    pixels = preprocess_image(read_image(images / "clear.png"), size=SIZE)
    expected = bundle.predict_proba(Blocks()(pixels[None]))[0]
    assert list(found.probabilities) == list(CLASSES)
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist())


def test_forced_decisions_are_marked(bundle, images):
    predictor = Predictor(bundle, backbone=Blocks(), force=True)
    clear, doubtful, noise = predictor.predict(
        [images / name for name in ("clear.png", "doubtful.png", "noise.png")]
    )
    assert (clear.decision, clear.forced) == ("glioma", False)
    for answer in (doubtful, noise):
        assert answer.forced
        assert answer.decision == max(answer.probabilities, key=answer.probabilities.get)
    assert noise.out_of_distribution.flagged
    assert "FORCED: out of distribution" in describe(noise)
    assert "FORCED: uncertain between" in describe(doubtful)


def test_the_nearest_training_images_have_labels_and_distances(predictor, slices):
    (found,) = predictor.predict([slices / "glioma" / "001.png"])
    distances = [neighbour.distance for neighbour in found.nearest]
    assert len(distances) == 5
    assert distances == sorted(distances)
    assert found.nearest[0].label == "glioma"


def test_more_coverage_makes_more_doubt(bundle, slices):
    def count(coverage):
        found = predict(bundle, [slices], backbone=Blocks(), coverage=coverage)
        return sum(answer.decision == "uncertain" for answer in found)

    assert count(0.7) < count(0.98)


def test_few_images_like_those_of_training_are_flagged(bundle, slices):
    found = predict(bundle, [slices], backbone=Blocks())
    assert len(found) == 480
    assert sum(answer.decision == "out-of-distribution" for answer in found) < 0.05 * 480


def test_prediction_sets_cover_the_true_class(bundle, slices):
    found = predict(bundle, [slices], backbone=Blocks())
    for name in CLASSES:
        sets = [answer.prediction_set for answer in found if f"/{name}/" in answer.path]
        assert np.mean([name in kept for kept in sets]) > 0.85


def test_a_folder_is_computed_in_batches_and_an_image_alone(bundle, slices):
    base = Blocks()
    predictor = Predictor(bundle, backbone=base)
    together = predictor.predict([slices / "glioma"])
    assert {shape[0] for shape in base.shapes} == {32}
    (alone,) = predictor.predict([slices / "glioma" / "239.png"])
    assert base.shapes[-1][0] == 1
    assert alone.decision == together[-1].decision
    assert alone.probabilities == pytest.approx(together[-1].probabilities, abs=1e-5)


def test_a_saved_head_answers_alike(bundle, images, tmp_path):
    path = bundle.save(tmp_path / "head.h5")
    names = [images / "clear.png", images / "noise.png"]
    before, after = (Predictor(head, backbone=Blocks()).predict(names) for head in (bundle, path))
    assert before == after
    assert HeadBundle.load(path).content_sha256


def test_a_head_without_detector_and_sets_says_so(bundle, images):
    bare = dataclasses.replace(bundle, ood_detector=None, conformal=None)
    (found,) = Predictor(bare, backbone=Blocks()).predict([images / "noise.png"])
    assert found.decision in CLASSES
    assert (found.prediction_set, found.out_of_distribution, found.nearest) == (None, None, ())
    assert "has no prediction sets" in describe(found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": Blocks(weights="1" * 64)}, "weights_sha256.*pass the weights"),
        ({"backbone": Blocks(precision="bfloat16")}, "which is lower"),
    ],
)
def test_another_base_is_refused(bundle, options, words):
    with pytest.raises(SpecMismatchError, match=words):
        Predictor(bundle, **options)


def test_a_higher_precision_is_taken(bundle, images):
    spec = dataclasses.replace(bundle.spec, precision="bfloat16")
    lower = dataclasses.replace(bundle, spec=spec)
    predictor = Predictor(lower, backbone=Blocks())
    assert predictor.precision == "float32"
    assert predictor.predict([images / "clear.png"])[0].decision == "glioma"


@pytest.mark.parametrize("options", [{"coverage": 1.0}, {"false_alarm_rate": 0.0}])
def test_options_out_of_range_are_refused(bundle, options):
    with pytest.raises(ParameterError):
        Predictor(bundle, backbone=Blocks(), **options)


def test_classes_with_the_name_of_an_abstention_are_refused(bundle):
    named = dataclasses.replace(bundle, class_names=("uncertain", "glioma"))
    with pytest.raises(BundleError, match="has the name uncertain"):
        Predictor(named, backbone=Blocks())


def test_a_prediction_comes_back_from_json(predictor, images):
    names = ("clear.png", "noise.png", "broken.jpg")
    for found in predictor.predict([images / name for name in names]):
        assert Prediction.from_json(json.dumps(found.to_dict(), allow_nan=False)) == found
    with pytest.raises(ParameterError, match="path"):
        Prediction.from_json("{}")


# Each file once


def count_calls(monkeypatch, module, name):
    """Give a list that grows by the first argument of each call of a function."""
    calls, function = [], getattr(module, name)

    def count(first, *arguments, **options):
        calls.append(first)
        return function(first, *arguments, **options)

    monkeypatch.setattr(module, name, count)
    return calls


def test_answers_keep_the_order_of_the_files_whatever_cannot_be_read(bundle, slices, tmp_path):
    files = sorted((slices / "glioma").iterdir())[:70]
    broken = [tmp_path / f"{number}.png" for number in range(3)]
    paths = [broken[0], *files[:31], broken[1], *files[31:], broken[2]]
    found = predict(bundle, paths, backbone=Blocks())
    assert [answer.path for answer in found] == [str(path) for path in paths]
    assert [answer.path for answer in found if answer.error] == [str(path) for path in broken]


def test_images_are_given_as_soon_as_their_batch_is_computed(predictor, slices):
    shown = []
    answers = predictor.predict_inputs(
        find_inputs([slices]), progress=lambda done, total: shown.append((done, total))
    )
    first = next(answers)
    assert shown[-1][0] < 480
    assert (first.pixels, first.image) == (None, None)
    assert len(list(answers)) == 479
    assert shown[-1] == (480, 480)


def test_kept_images_are_those_that_were_read(predictor, images):
    inputs = find_inputs([images / "clear.png", images / "broken.jpg"])
    clear, broken = predictor.predict_inputs(inputs, keep_images=True)
    pixels = read_image(images / "clear.png")
    np.testing.assert_array_equal(clear.pixels / np.float32(255), pixels)
    np.testing.assert_array_equal(clear.image, preprocess_image(pixels, size=SIZE))
    assert (broken.pixels, broken.image) == (None, None)


def mark(image):
    """Make one of the 64 blocks a little brighter."""
    pixels = np.asarray(image).astype(float)
    pixels[:4, :4] += 9
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_a_head_flags_images_like_its_out_of_distribution_examples(slices, bundle, tmp_path):
    for path in sorted(slices.rglob("*.png"))[::2]:
        with Image.open(path) as image:
            mark(image).save(tmp_path / f"{path.parent.name}{path.name}")
    strange = extract(read_table(tmp_path), tmp_path / "s.h5", backbone=Blocks()).output
    cache = extract(read_table(slices), tmp_path / "f.h5", backbone=Blocks()).output
    shown = fit_head(cache, head="logistic", group_by="none", n_jobs=1, ood_examples=strange)
    assert (shown.training.ood_examples, bundle.training.ood_examples) == (240, None)
    rng = np.random.default_rng(8)
    (tmp_path / "new").mkdir()
    for number in range(40):
        mark(draw(rng, bright=bool(number % 2))).save(tmp_path / "new" / f"{number}.png")
    refused = [
        [answer.decision for answer in predict(head, [tmp_path / "new"], backbone=Blocks())].count(
            "out-of-distribution"
        )
        for head in (bundle, shown.save(tmp_path / "h.h5"))
    ]
    assert refused[1] > refused[0] + 10


def test_out_of_distribution_examples_of_another_spec_or_none_are_refused(slices, tmp_path):
    cache = extract(read_table(slices), tmp_path / "f.h5", backbone=Blocks()).output
    other = extract(read_table(slices), tmp_path / "o.h5", backbone=Blocks(weights="1" * 64)).output
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        fit_head(cache, head="knn", ood_examples=other)
    with pytest.raises(CacheError, match="missing"):
        fit_head(cache, head="knn", ood_examples=tmp_path / "missing.h5")


# The command


@pytest.fixture
def run(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("brainfeat.prediction.bases.load_backbone", lambda *_, **__: Blocks())
    bundle.save(tmp_path / "head.h5")

    def run(*arguments):
        return CliRunner().invoke(command, [str(tmp_path / "head.h5"), *map(str, arguments)])

    return run


def test_the_command_says_it_in_a_line_each(run, images):
    result = run(images / "clear.png", images / "doubtful.png", images / "noise.png")
    assert result.exit_code == 0
    clear, doubtful, noise, notice = result.stdout.splitlines()
    assert "clear.png: glioma (0." in clear
    assert clear.endswith("ruled out")
    assert "doubtful.png: uncertain between" in doubtful
    assert "noise.png: out of distribution: score" in noise
    assert notice == NOTICE


def test_the_command_says_what_it_wrote(run, images, tmp_path):
    outputs = ("-o", tmp_path / "found.csv", "--heatmap", tmp_path / "maps")
    result = run(images / "clear.png", images / "noise.png", images / "broken.jpg", *outputs)
    assert result.exit_code == 0
    written = [line for line in result.stderr.splitlines() if "written" in line]
    assert written == ["2 heat maps written into maps", "found.csv written, 3 rows"]


def test_json_has_the_keys_of_the_interface(run, images):
    document = json.loads(run(images, "--json").stdout)
    assert [entry["path"].rpartition("/")[2] for entry in document] == [
        *("broken.jpg", "clear.png", "doubtful.png", "noise.png"),
    ]
    clear = document[1]
    assert {"path", "frame", "decision", "probabilities", "prediction_set"} <= set(clear)
    assert set(clear["out_of_distribution"]) == {"score", "threshold", "flagged"}
    assert clear["notice"] == NOTICE
    assert len(clear["spec"]) == len(clear["bundle"]) == 64
    assert document[0]["error"] == "not a JPEG, PNG, TIFF, BMP, GIF or WebP image"
    assert "decision" not in document[0]


def test_it_fails_only_where_no_image_can_be_read(run, images):
    assert run(images / "broken.jpg", images / "clear.png").exit_code == 0
    result = run(images / "broken.jpg", images / "not-there.png")
    assert result.exit_code == 1
    assert "not-there.png: cannot be read: no such file" in result.stdout


def test_a_table_is_written_that_no_spreadsheet_runs(run, images):
    (images / "clear.png").rename(images / "=1+1.png")
    output = images / "found.csv"
    monkey = run(images / "=1+1.png", images / "broken.jpg", "-o", output)
    assert monkey.exit_code == 0
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["decision"] == "glioma"
    assert float(rows[0]["probability glioma"]) > 0.5
    assert rows[1]["error"] == "not a JPEG, PNG, TIFF, BMP, GIF or WebP image"
    again = run(images / "broken.jpg", "-o", output)
    assert "exists" in str(again.exception)


def test_a_name_cannot_move_the_cursor(run, images):
    (images / "clear.png").rename(images / "a\x1b[2J.png")
    assert "\x1b" not in run(images / "a\x1b[2J.png").stdout


def test_heat_maps_are_drawn_of_what_was_read(run, images):
    folder = images / "maps"
    result = run(images / "broken.jpg", images / "clear.png", "--heatmap", folder)
    assert result.exit_code == 0, result.exception
    (drawn,) = folder.iterdir()
    assert drawn.name == "00002-clear.png"
    with Image.open(drawn) as picture:
        assert min(picture.size) > 100
    again = run(images / "clear.png", "--heatmap", folder)
    assert "exists" in str(again.exception)


@pytest.mark.parametrize("options", [[], ["--heatmap", "maps"]])
def test_each_folder_is_listed_and_each_image_decoded_once(run, slices, monkeypatch, options):
    monkeypatch.chdir(slices.parent)
    listed = count_calls(monkeypatch, os, "scandir")
    decoded = count_calls(monkeypatch, prediction_images, "read_pixels")
    unpacked = count_calls(monkeypatch, raster, "_unpack")
    few = slices.parent / f"few-{len(options)}"
    number = 9 if options else 20  # of a class; two draws of heat maps
    for name in CLASSES:
        (few / name).mkdir(parents=True)
        for file in sorted((slices / name).iterdir())[:number]:
            shutil.copy(file, few / name)
    # Without a look for masks, which opens few files of each folder once more.
    assert run(few, *options, "--overwrite", "--keep-masks").exit_code == 0
    inside = [str(path) for path in listed if str(path).startswith(str(few))]
    assert sorted(inside) == [str(few), *(str(few / name) for name in CLASSES)]
    assert len(decoded) == len(set(decoded)) == len(unpacked) == 2 * number


def test_heat_maps_of_several_draws_are_numbered_through(run, slices, tmp_path):
    files = sorted((slices / "notumor").iterdir())[:18]
    assert run(*files, "--heatmap", tmp_path / "maps").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == [f"{number:05}-{file.stem}.png" for number, file in enumerate(files, 1)]


def test_the_old_name_of_an_option_is_accepted_and_not_shown(run, images):
    before = "--false-refusals"  # codespell:ignore
    old, new = (
        run(images / "clear.png", "--json", name, "0.2").stdout
        for name in (before, "--false-alarm-rate")
    )
    assert old == new != run(images / "clear.png", "--json").stdout
    assert before not in run("--help").stdout
    assert "Invalid value for '--false-alarm-rate'" in run("x", before, "2").output


def test_an_empty_folder_is_an_error(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no images and no volumes" in str(run(tmp_path / "empty").exception)


def test_masks_in_folders_are_left_out(run, predictor, images):
    shutil.copy(images / "clear.png", images / "clear_mask.png")
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[9:20, 8:16] = 255
    Image.fromarray(mask).save(images / "drawn.png")
    names = {"clear_mask.png", "drawn.png"}
    result = run(images)
    assert not any(name in result.stdout for name in names)
    assert result.stderr == (
        "warning: 2 files left out for having the name of a mask, or having two values only, as"
        " masks have, beside images of the same size; if that is wrong, pass --keep-masks\n"
    )
    found = [entry.path.rpartition("/")[2] for entry in predictor.predict(images)]
    assert len(found) == 4
    assert not names & {*found}
    kept = run(images, "--keep-masks", "--json")
    assert kept.stderr == ""
    assert names <= {entry["path"].rpartition("/")[2] for entry in json.loads(kept.stdout)}
    named = predictor.predict([images, images / "drawn.png"])
    assert [entry.path for entry in named].count(str(images / "drawn.png")) == 2
    assert len(predict(predictor.bundle, images, backbone=Blocks(), keep_masks=True)) == 6


def test_nothing_but_masks_is_an_error(run, images):
    (images / "deep/masks").mkdir(parents=True)
    shutil.copy(images / "clear.png", images / "deep/masks/1.png")
    message = str(run(images / "deep").exception)
    assert "1 file in what was given, and all are masks by their names or their" in message
    assert run(images / "deep/masks").exit_code == 0


def test_an_archive_is_to_be_unpacked(run, images):
    (images / "set.zip").write_bytes(b"PK\x03\x04 and more")
    result = run(images / "set.zip")
    assert result.exit_code == 1
    assert "cannot be read: an archive (zip); unpack it first" in result.stdout


@pytest.mark.parametrize("suffix", ["tif", "bmp", "webp", "gif", "jfif"])
def test_images_of_other_formats_are_predicted(run, images, suffix):
    with Image.open(images / "clear.png") as image:
        kind = {"tif": "TIFF", "jfif": "JPEG"}.get(suffix, suffix.upper())
        options = {"lossless": True} if suffix == "webp" else {}
        (images / "other").mkdir()
        image.convert("RGB" if suffix != "gif" else "L").save(
            images / f"other/clear.{suffix}", kind, **options
        )
    maps = images / "maps"
    result = run(images / "other", "--heatmap", maps)
    assert f"clear.{suffix}: glioma (0." in result.stdout
    assert [path.name for path in maps.iterdir()] == ["00001-clear.png"]


# Images that the head has seen


def test_images_of_the_fit_are_marked(predictor, bundle, slices, images, tmp_path):
    """The same file, a mirrored copy of it, an image of the test split, and a new one."""
    digests = {digest.tobytes() for digest in bundle.fitted_images.seen}
    paths = sorted(slices.rglob("*.png"))
    seen = next(path for path in paths if sha256(path.read_bytes()).digest() in digests)
    held_out = next(path for path in paths if sha256(path.read_bytes()).digest() not in digests)
    with Image.open(seen) as image:
        ImageOps.mirror(image).save(tmp_path / "mirrored.jpg", quality=90)
    found = predictor.predict([seen, tmp_path / "mirrored.jpg", held_out, images / "clear.png"])
    assert [answer.seen for answer in found] == ["exact-duplicate", "copy", None, None]
    assert Prediction.from_json(json.dumps(found[1].to_dict())) == found[1]


def test_without_signatures_only_files_are_recognised(bundle, slices, tmp_path):
    bare = dataclasses.replace(
        bundle, fitted_images=dataclasses.replace(bundle.fitted_images, signature=None)
    )
    paths = sorted(slices.rglob("*.png"))
    digests = {digest.tobytes() for digest in bundle.fitted_images.seen}
    seen = next(path for path in paths if sha256(path.read_bytes()).digest() in digests)
    with Image.open(seen) as image:
        ImageOps.mirror(image).save(tmp_path / "mirrored.png")
    for head, expected in (
        (bare, ["exact-duplicate", None]),
        (dataclasses.replace(bundle, fitted_images=None), [None, None]),
    ):
        answers = Predictor(head, backbone=Blocks()).predict([seen, tmp_path / "mirrored.png"])
        assert [answer.seen for answer in answers] == expected


def test_the_command_says_that_an_image_was_seen(bundle, slices, tmp_path, monkeypatch):
    monkeypatch.setattr("brainfeat.prediction.bases.load_backbone", lambda *_, **__: Blocks())
    head = bundle.save(tmp_path / "head.h5")
    digests = {digest.tobytes() for digest in bundle.fitted_images.seen}
    seen = next(
        path
        for path in sorted(slices.rglob("*.png"))
        if sha256(path.read_bytes()).digest() in digests
    )
    result = CliRunner().invoke(command, [str(head), str(seen), "-o", str(tmp_path / "out.csv")])
    assert result.exit_code == 0, result.output
    assert "fitted or validated on this file; this says nothing about new images" in result.stdout
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines())
    assert row["seen"] == "exact-duplicate"


# What predict takes: one image or many, files or images in memory


def test_one_path_is_one_image(predictor, bundle, images):
    path = images / "clear.png"
    (expected,) = predictor.predict([path])
    assert predictor.predict(str(path)) == predictor.predict(path) == [expected]
    assert predict(bundle, str(path), backbone=Blocks()) == [expected]


def hold(path, kind):
    image = Image.open(path)
    unit = np.asarray(image) / 255
    return {
        "pillow": image,
        "grey uint8": np.asarray(image),
        "rgb uint8": np.asarray(image.convert("RGB")),
        "float32": unit.astype(np.float32),
        "float64 rgb": np.dstack([unit] * 3),
    }[kind]


@pytest.mark.parametrize("kind", ["pillow", "grey uint8", "rgb uint8", "float32", "float64 rgb"])
def test_an_image_in_memory_is_predicted_as_its_file(predictor, images, kind):
    path = images / "clear.png"
    (expected,) = predictor.predict(path)
    (found,) = predictor.predict(hold(path, kind))
    assert found == dataclasses.replace(expected, path="image 1")


def test_files_and_images_in_memory_keep_their_order(predictor, images):
    clear, noise = images / "clear.png", images / "noise.png"
    found = predictor.predict([noise, np.asarray(Image.open(clear)), clear, Image.open(noise)])
    assert [entry.path for entry in found] == [str(noise), "image 2", str(clear), "image 4"]
    assert [entry.decision for entry in found] == [
        *("out-of-distribution", "glioma"),
        *("glioma", "out-of-distribution"),
    ]


def test_an_image_of_pillow_is_turned_upright_as_its_file_is(predictor, images):
    path, exif = images / "turned.png", Image.Exif()
    exif[0x0112] = 6
    with Image.open(images / "clear.png") as image:
        image.convert("RGBA").save(path, exif=exif)
    (expected,) = predictor.predict(path)
    with Image.open(path) as image:
        (turned,) = predictor.predict(image)
        (upright,) = predictor.predict(ImageOps.exif_transpose(image))
    assert turned.probabilities == upright.probabilities == expected.probabilities


def test_a_copy_in_memory_is_recognised(predictor, slices):
    (found,) = predictor.predict(Image.open(slices / "glioma" / "001.png"))
    assert found.seen == "copy"


def test_a_damaged_image_of_pillow_cannot_be_read(predictor, images):
    (images / "cut.png").write_bytes((images / "noise.png").read_bytes()[:90])
    with Image.open(images / "cut.png") as image:
        (found,) = predictor.predict(image)
    assert (found.path, found.decision) == ("image 1", None)
    assert found.error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"scan.png", "images of type bytes; expected a path, an image of Pillow or an array"),
        (7, "images of type int"),
        (io.BytesIO(b"x"), "images of type BytesIO"),
        ([None], "image 1 is of type NoneType"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"\(2, 8, 8, 3\).*pass several images as a list"),
        (np.zeros((8, 8, 4), np.uint8), r"shape \(8, 8, 4\); expected \(h, w\) or \(h, w, 3\)"),
        (np.zeros((0, 8), np.uint8), r"shape \(0, 8\)"),
        (np.zeros((8, 8), np.uint16), "array of uint16; expected uint8, or floating point"),
        (np.full((8, 8), 255.0), r"values from 255 to 255; expected \[0, 1\]: divide"),
        (np.full((8, 8), np.nan), r"values from nan to nan"),
        (Image.new("F", (8, 8)), "mode 'F', whose white is not known"),
    ],
)
def test_what_is_no_image_is_refused(predictor, given, message):
    with pytest.raises(ParameterError, match=message):
        predictor.predict(given)
