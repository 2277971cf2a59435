"""predict: the decision and its reasons, what is refused, and what a person reads."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.halves import CLASSES, SIZE, Blocks, draw

from brainfeat import Predictor, extract, fit_head, predict, read_table
from brainfeat.cli.predict import command, describe
from brainfeat.errors import BundleError, CacheError, ParameterError, SpecMismatchError
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.answers import NOTICE
from brainfeat.prediction.predictor import list_images
from brainfeat.readers import read_image


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
    assert clear.set == ["glioma"]
    assert clear.error is None
    assert not clear.out_of_scope["refused"]
    assert doubtful.decision == "uncertain"
    assert set(doubtful.set) == {"glioma", "notumor"}
    assert noise.decision == "out-of-scope"
    assert noise.out_of_scope["score"] > noise.out_of_scope["threshold"]
    assert broken.decision is None
    assert broken.error == "not a JPEG or PNG image"
    assert broken.to_dict() == {
        "path": str(images / "broken.jpg"),
        "frame": None,
        "error": "not a JPEG or PNG image",
    }


def test_probabilities_are_the_calibrated_ones_of_the_bundle(predictor, bundle, images):
    (found,) = predictor.predict([images / "clear.png"])
    pixels = preprocess_image(read_image(images / "clear.png"), size=SIZE)
    expected = bundle.predict_proba(Blocks()(pixels[None]))[0]
    assert list(found.probabilities) == list(CLASSES)
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist())


def test_forced_answers_are_marked(bundle, images):
    predictor = Predictor(bundle, backbone=Blocks(), force=True)
    clear, doubtful, noise = predictor.predict(
        [images / name for name in ("clear.png", "doubtful.png", "noise.png")]
    )
    assert (clear.decision, clear.forced) == ("glioma", False)
    for answer in (doubtful, noise):
        assert answer.forced
        assert answer.decision == max(answer.probabilities, key=answer.probabilities.get)
    assert noise.out_of_scope["refused"]
    assert "FORCED: out of scope" in describe(noise)
    assert "FORCED: uncertain between" in describe(doubtful)


def test_the_nearest_training_images_have_labels_and_distances(predictor, slices):
    (found,) = predictor.predict([slices / "glioma" / "001.png"])
    assert [set(entry) for entry in found.nearest] == [{"label", "distance"}] * 5
    distances = [entry["distance"] for entry in found.nearest]
    assert distances == sorted(distances)
    assert found.nearest[0]["label"] == "glioma"


def test_more_coverage_makes_more_doubt(bundle, slices):
    def count(coverage):
        found = predict(bundle, [slices], backbone=Blocks(), coverage=coverage)
        return sum(answer.decision == "uncertain" for answer in found)

    assert count(0.7) < count(0.98)


def test_few_images_like_those_of_training_are_refused(bundle, slices):
    found = predict(bundle, [slices], backbone=Blocks())
    assert len(found) == 480
    assert sum(answer.decision == "out-of-scope" for answer in found) < 0.05 * 480


def test_the_set_of_the_true_class_is_kept(bundle, slices):
    found = predict(bundle, [slices], backbone=Blocks())
    for name in CLASSES:
        sets = [answer.set for answer in found if f"/{name}/" in answer.path]
        assert np.mean([name in kept for kept in sets]) > 0.85


def test_a_folder_is_computed_in_batches_and_an_image_alone(bundle, slices):
    base = Blocks()
    predictor = Predictor(bundle, backbone=base)
    together = predictor.predict(list_images([slices / "glioma"]))
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


def test_a_head_without_scope_and_sets_says_so(bundle, images):
    bare = dataclasses.replace(bundle, ood_detector=None, conformal=None)
    (found,) = Predictor(bare, backbone=Blocks()).predict([images / "noise.png"])
    assert found.decision in CLASSES
    assert (found.set, found.out_of_scope, found.nearest) == (None, None, [])
    assert "cannot say what it rules out" in describe(found)


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


@pytest.mark.parametrize("options", [{"coverage": 1.0}, {"false_refusals": 0.0}])
def test_options_out_of_range_are_refused(bundle, options):
    with pytest.raises(ParameterError):
        Predictor(bundle, backbone=Blocks(), **options)


def test_classes_that_are_called_as_an_abstention_are_refused(bundle):
    named = dataclasses.replace(bundle, class_names=("uncertain", "glioma"))
    with pytest.raises(BundleError, match="called uncertain"):
        Predictor(named, backbone=Blocks())


def test_folders_are_listed_by_name_without_hidden_files(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt", "deep/c.jpeg", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in list_images([tmp_path])]
    assert found == ["a.JPG", "b.png", "deep/c.jpeg"]
    assert list_images([tmp_path / "not-there.png"]) == [tmp_path / "not-there.png"]


def mark(image):
    """Make one of the 64 blocks a little brighter."""
    pixels = np.asarray(image).astype(float)
    pixels[:4, :4] += 9
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_a_head_refuses_the_strangers_that_it_was_shown(slices, bundle, tmp_path):
    for path in sorted(slices.rglob("*.png"))[::2]:
        with Image.open(path) as image:
            mark(image).save(tmp_path / f"{path.parent.name}{path.name}")
    strange = extract(read_table(tmp_path), tmp_path / "s.h5", backbone=Blocks()).output
    cache = extract(read_table(slices), tmp_path / "f.h5", backbone=Blocks()).output
    shown = fit_head(cache, head="logistic", group_by="none", n_jobs=1, ood_examples=strange)
    assert (shown.training["strangers"], bundle.training["strangers"]) == (240, None)
    rng = np.random.default_rng(8)
    (tmp_path / "new").mkdir()
    for number in range(40):
        mark(draw(rng, bright=bool(number % 2))).save(tmp_path / "new" / f"{number}.png")
    refused = [
        [answer.decision for answer in predict(head, [tmp_path / "new"], backbone=Blocks())].count(
            "out-of-scope"
        )
        for head in (bundle, shown.save(tmp_path / "h.h5"))
    ]
    assert refused[1] > refused[0] + 10


def test_strangers_of_another_spec_or_none_are_refused(slices, tmp_path):
    cache = extract(read_table(slices), tmp_path / "f.h5", backbone=Blocks()).output
    other = extract(read_table(slices), tmp_path / "o.h5", backbone=Blocks(weights="1" * 64)).output
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        fit_head(cache, head="knn", ood_examples=other)
    with pytest.raises(CacheError, match="missing"):
        fit_head(cache, head="knn", ood_examples=tmp_path / "missing.h5")


# The command


@pytest.fixture
def run(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("brainfeat.prediction.predictor.load_backbone", lambda *_, **__: Blocks())
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
    assert "noise.png: out of scope, unlike the training images" in noise
    assert notice == NOTICE


def test_json_has_the_keys_of_the_interface(run, images):
    document = json.loads(run(images, "--json").stdout)
    assert [entry["path"].rpartition("/")[2] for entry in document] == [
        *("broken.jpg", "clear.png", "doubtful.png", "noise.png"),
    ]
    clear = document[1]
    assert {"path", "frame", "decision", "probabilities", "set", "forced"} <= set(clear)
    assert set(clear["out_of_scope"]) == {"score", "threshold", "refused"}
    assert clear["notice"] == NOTICE
    assert len(clear["spec"]) == len(clear["bundle"]) == 64
    assert document[0]["error"] == "not a JPEG or PNG image"
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
    assert rows[1]["error"] == "not a JPEG or PNG image"
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


def test_an_empty_folder_is_an_error(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no JPEG, PNG, DICOM or NIfTI files" in str(run(tmp_path / "empty").exception)
