"""Every example runs and prints what it promises."""

import dataclasses
import importlib
import json
import multiprocessing
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.caches import draw_signatures, write_vectors
from support.dicoms import write_series

from brainfeat import extract, fit_head, read_table
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.signature import orient_signatures
from brainfeat.heads.kinds import HEAD_NAMES
from brainfeat.phantoms import write_phantoms
from brainfeat.readers import read_image

EXAMPLES = Path(__file__).parents[1] / "examples"
BASE = ("--backbone", "mobilenet-0.75", "--size", "32")

RunExample = Callable[..., str]


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExample:
    """Return a function that runs an example as a script and returns what it printed."""

    def run(name: str, *arguments: str) -> str:
        script = EXAMPLES / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_stage_one_shows_a_cache_of_synthetic_slices(run_example: RunExample) -> None:
    printed = run_example("stage_one", *BASE, "--patients", "2")
    assert "first run: 24 computed, 0 reused" in printed
    assert "second run: 0 computed, 24 reused" in printed
    assert "24 rows of 768 mobilenet-0.75 features" in printed
    assert "train  glioma 3, meningioma 3, notumor 3, pituitary 3" in printed
    assert "test   glioma 3, meningioma 3, notumor 3, pituitary 3" in printed
    assert "Training/glioma/glioma-000-" in printed


def test_stage_one_caches_a_folder_of_ones_own(run_example: RunExample, tmp_path: Path) -> None:
    table = write_phantoms(tmp_path / "slices", patients_per_class=2, slices_per_patient=1, size=32)
    (table.parent / "Training" / "glioma" / "broken.png").write_bytes(b"")
    output = tmp_path / "mine.h5"
    printed = run_example("stage_one", str(table.parent), *BASE, "-o", str(output))
    assert "rejected Training/glioma/broken.png: " in printed
    with FeatureCache.open(output) as cache:
        assert len(cache) == 8


def test_compare_specs_finds_the_better_features(
    run_example: RunExample, make_cache: Callable, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(240) % 4
    clear, noise = 3 * np.eye(6)[y], rng.standard_normal((240, 6))
    splits = ["train", "train", "test"] * 80
    words = []
    for name, X, crop in (("plain", noise, ""), ("cropped", clear + noise, "foreground")):
        fields = {"splits": splits, "signature": draw_signatures(240), "crop": crop}
        words += [tmp_path / f"{name}-head.h5", make_cache(X, y, name=f"{name}.h5", **fields)]
        fit_head(words[-1], head="lda").save(words[-2])
    printed = run_example("compare_specs", *map(str, words))
    assert "80 images in 80 groups" in printed
    found = re.search(r"^accuracy .*; difference \+(\S+) \(\+(\S+) to", printed, re.MULTILINE)
    assert found is not None
    assert float(found[1]) > float(found[2]) > 0.3
    others = [f"other-{row}.png" for row in range(240)]
    words[-1] = make_cache(X, y, name="others.h5", paths=others, **fields)
    with pytest.raises(SystemExit, match="other images"):
        run_example("compare_specs", *map(str, words))


def test_benchmark_crop_prints_both_rates(run_example: RunExample, tmp_path: Path) -> None:
    table = write_phantoms(tmp_path / "slices", patients_per_class=2, slices_per_patient=1, size=48)
    words = [str(table), *BASE, "--rounds", "1", "--number", "3"]
    printed = run_example("benchmark_crop", *words)
    assert re.search(r"none +\d+\.\d images/s\nforeground +\d+\.\d images/s\nratio +\d", printed)


def test_many_heads_ranks_all_by_cross_validation(
    run_example: RunExample, make_cache: Callable
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    X = rng.standard_normal((120, 6)) + 2 * np.eye(6)[y]
    features = make_cache(X, y, splits=["train", "train", "test"] * 40)
    printed = run_example("many_heads", str(features), "--folds", "2")
    rows = re.findall(r"^ +(\d)  (\S+) +(\d\.\d{3}) ± \d\.\d{3}", printed, re.MULTILINE)
    assert [int(rank) for rank, _, _ in rows] == list(range(1, 9))
    assert {head for _, head, _ in rows} == set(HEAD_NAMES)
    scores = [float(score) for _, _, score in rows]
    assert scores == sorted(scores, reverse=True)
    assert re.search(r"accuracy \d\.\d{3} over 2 folds, \d\.\d{3} on the test images", printed)


@pytest.mark.slow
def test_many_heads_needs_no_cache(run_example: RunExample) -> None:
    options = ("--patients", "4", "--head", "knn", "--search", "--folds", "2")
    printed = run_example("many_heads", *BASE, *options)
    assert re.search(r"^ +1  knn +\d\.\d{3} ± .*n_neighbors", printed, re.MULTILINE)


def test_benchmark_stress_prints_the_ratio_of_each_round(
    run_example: RunExample, tmp_path: Path
) -> None:
    table = write_phantoms(tmp_path / "slices", patients_per_class=2, size=32)
    options = (*BASE, "--weights", "random", "--number", "1", "--rounds", "2")
    header, *rounds, last = run_example("benchmark_stress", str(table), *options).splitlines()
    assert header.split()[:2] == ["round", "as"]
    assert [line.split()[0] for line in rounds] == ["1", "2"]
    assert re.fullmatch(r"median ratio \d+\.\d\d", last)


def test_benchmark_volumes_prints_the_ratio_of_each_round(run_example: RunExample) -> None:
    options = (*BASE, "--volumes", "2", "--shape", "3", "32", "--rounds", "2")
    header, *rounds, last = run_example("benchmark_volumes", *options).splitlines()
    assert header.split() == ["round", "PNG,", "images/s", "volumes,", "images/s", "ratio"]
    assert [line.split()[0] for line in rounds] == ["1", "2"]
    assert re.fullmatch(r"median ratio \d+\.\d\d", last)


@pytest.mark.slow
def test_benchmark_growth_prints_a_line_for_each_size(run_example: RunExample) -> None:
    printed = run_example("benchmark_growth", "--rows", "200", "400", "--heads", "logistic")
    header, *lines = printed.splitlines()
    assert header.split() == ["rows", "seconds", "peak", "MB", "head"]
    assert [(line.split()[0], line.split()[3]) for line in lines] == [
        ("200", "logistic"),
        ("400", "logistic"),
    ]
    for line in lines:
        seconds, peak = map(float, line.split()[1:3])
        assert 0 < seconds < 60
        assert 50 < peak < 2000


def test_benchmark_sets_prints_the_ratio(
    run_example: RunExample, make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    rng, y = np.random.default_rng(0), np.arange(80) % 4
    X = rng.standard_normal((80, 8)) + np.eye(4, 8)[y]
    caches = [make_cache(X, y, name=f"{name}.h5") for name in "ab"]
    head = fit_head(caches[0], head="lda", n_jobs=1).save(tmp_path / "head.h5")
    printed = run_example("benchmark_sets", str(head), *map(str, caches), "--rounds", "1")
    assert printed.count("80 rows") == 2
    assert re.search(r"^ratio +[0-9.]+$", printed, re.MULTILINE)


@pytest.mark.slow
def test_benchmark_kernel_prints_the_ratio_and_what_changes() -> None:
    printed = run_alone("benchmark_kernel", "--rows", "300", "--rounds", "1")
    assert re.search(r"kernel: \d\.\d\d s, \d+ MB\npairs: \d\.\d\d s, \d+ MB\nratio: ", printed)
    assert float(printed.split()[-1]) < 1e-6


@pytest.mark.slow
def test_benchmark_curve_prints_the_ratio() -> None:
    printed = run_alone("benchmark_curve", "--rows", "200", "--rounds", "1")
    assert re.search(r"curve: \d+\.\d s\ncalls: \d+\.\d s\ncalls to curve: \d+\.\d\n", printed)


@pytest.mark.slow
def test_leakage_prints_the_scores_with_and_without_copies(
    run_example: RunExample, make_cache: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    X = rng.normal(size=(400, 48)) + 0.5 * rng.normal(size=(4, 48))[y]
    contents = [f"{row}" for row in range(400)]
    X[300:330], contents[300:330] = X[:30], contents[:30]
    signature = draw_signatures(400)
    signature[300:330] = signature[:30]
    signature[330:340] = orient_signatures(signature[30:40], 1)
    given = {
        "splits": ["train"] * 300 + ["test"] * 100,
        "contents": contents,
        "signature": signature,
    }
    features = make_cache(X, y, **given)
    random = make_cache(rng.normal(size=X.shape), y, name="random.h5", **given)
    lines = run_example("leakage", str(features), "--head", "lda", "--random", str(random))
    scores = [line for line in lines.splitlines() if line.endswith(" images")]
    sizes = ["100", "70", "60", "60"]
    assert [line.split()[-2] for line in scores] == [*sizes, "40", "100", *sizes]
    assert "- exact duplicates are in several splits: 30 groups" in lines


@pytest.mark.slow
def test_label_noise_prints_a_line_for_each_list_and_seed(
    run_example: RunExample, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = rng.standard_normal((300, 16)) + 2 * rng.standard_normal((3, 16))[y]
    features = write_vectors(tmp_path, X, y, class_names=("a", "b", "c"))
    printed = run_example("label_noise", str(features), "--seeds", "2").splitlines()
    assert len(printed) == 1 + 4 * 2
    precision, recall, ranking = map(float, printed[1].split()[-3:])
    assert min(precision, recall, ranking) > 0.6


def test_benchmark_audit_prints_a_line_for_each_size_and_search() -> None:
    printed = run_alone("benchmark_audit", "--rows", "300", "600").splitlines()
    near, copies = printed[:3], printed[3:]
    assert near[0].split() == ["near", "seconds", "MB", "clusters", "products", "ratio"]
    assert [line.split()[0] for line in near[1:]] == ["300", "600"]
    assert [int(line.split()[3]) for line in near[1:]] == [15, 30]
    head = ["copies", "seconds", "MB", "pairs", "missed", "brute", "ratio", "to", "near", "growth"]
    assert copies[0].split() == head
    for line, rows, planted in zip(copies[1:], ["300", "600"], [15, 30], strict=True):
        found = line.split()
        assert (found[0], found[4]) == (rows, "0")
        assert planted <= int(found[3]) < 2 * planted


def cache_slices(table: Path) -> Path:
    return extract(
        read_table(table),
        table.with_name("features.h5"),
        backbone="mobilenet-0.75",
        weights="random",
        input_size=32,
        precision="float32",
    ).output


@pytest.mark.slow
def test_odd_images_prints_a_line_for_each_kind(run_example: RunExample, tmp_path: Path) -> None:
    table = write_phantoms(tmp_path / "slices", patients_per_class=4, size=64)
    features = cache_slices(table)
    head = fit_head(features, head="lda", n_jobs=1).save(tmp_path / "head.h5")
    lines = run_example(
        *("odd_images", str(head), "--images", str(table), "--weights", "random"),
        *("--number", "3"),
    ).splitlines()
    assert len(lines) == 10
    for line in lines[1:]:
        images, *decisions = map(int, line[22:].split())
        assert images == sum(decisions) == 3


def test_make_ood_examples_rotates_training_slices(run_example: RunExample, tmp_path: Path) -> None:
    table = write_phantoms(tmp_path / "slices", patients_per_class=2, size=64)
    output = tmp_path / "odd"
    printed = run_example("make_ood_examples", str(table), "-o", str(output), "--number", "5")
    assert printed == f"20 images in {output}\n"
    rows = {int(path.name.partition("-")[0]) for path in output.iterdir()}
    read = read_table(table)
    assert {read.splits[row] for row in rows} == {"train"}
    row = min(rows)
    original = read_image(read.absolute_path(row))
    assert (np.rot90(original) == read_image(output / f"{row}-90.png")).all()
    assert original + read_image(output / f"{row}-inverted.png") == pytest.approx(1.0)


def test_readme_picture_is_a_small_picture(run_example: RunExample, tmp_path: Path) -> None:
    output = tmp_path / "picture.png"
    run_example(
        "readme_picture", "-o", str(output), *BASE, "--weights", "random", "--patients", "4"
    )
    with Image.open(output) as drawn:
        assert drawn.size == (900, 410)
    assert output.stat().st_size < 150_000


@pytest.mark.slow
def test_near_threshold_compares_altered_slices(run_example: RunExample, tmp_path: Path) -> None:
    table = write_phantoms(tmp_path / "slices", patients_per_class=2, size=64)
    features = cache_slices(table)
    lines = run_example(
        *("near_threshold", str(features), "--images", str(table), "--number", "3"),
        *("--backbone", "mobilenet-0.75", "--weights", "random"),
    ).splitlines()
    saved = next(line for line in lines if line.startswith("saved as PNG"))
    assert saved.split()[3:] == ["1.000", "100%", "100%", "100%"]
    assert lines[-1].split()[0] == "100.0%"


def test_copy_threshold_finds_each_turn_of_a_slice(run_example: RunExample, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("glioma", "notumor"):
        image = Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).resize((64, 64))
        turned = image.transpose(Image.Transpose.ROTATE_90)
        for split, drawn in (("Training", image), ("Testing", turned)):
            folder = tmp_path / "slices" / split / name
            folder.mkdir(parents=True)
            drawn.save(folder / "1.png")
    features = cache_slices(tmp_path / "slices")
    lines = run_example(
        "copy_threshold", str(features), "--images", str(tmp_path / "slices")
    ).splitlines()
    assert lines[0].startswith("4 slices")
    assert [line.split()[-1] for line in lines if "turned by" in line] == ["100.0%"] * 3
    assert lines[-4].split() == ["0.98", "2", "0"]
    assert lines[-2].endswith("in train: 2")
    assert lines[-1].endswith("{'glioma': 0, 'notumor': 0}")


@pytest.mark.slow
def test_dicom_report_goes_from_volumes_to_a_page(run_example: RunExample, tmp_path: Path) -> None:
    table = read_table(
        write_phantoms(tmp_path / "slices", patients_per_class=5, slices_per_patient=3, size=48)
    )
    volumes: dict[tuple[str, str], list[NDArray[np.uint16]]] = {}
    for row, patient in enumerate(table.groups):
        pixels = read_image(table.absolute_path(row))[..., 0]
        volumes.setdefault((table.labels[row], patient), []).append((pixels * 4095).astype("u2"))
    for (label, patient), pixels in volumes.items():
        folder = tmp_path / "hospital" / label / patient
        write_series(folder, np.stack(pixels), PatientID=patient)
    (tmp_path / "key").write_bytes(bytes(range(65, 90)))
    output = tmp_path / "study"
    printed = run_example(
        "dicom_report",
        *(str(tmp_path / "hospital"), "--output", str(output), "--key", str(tmp_path / "key")),
        *("--slices", "all", "--weights", "random", *BASE),
    )
    assert "60 slices of 20 patients; 0 refused" in printed
    page = (output / "report.html").read_text()
    assert "</html>" in page
    assert not re.search("|".join(set(table.groups)), page)


def test_own_csv_cuts_no_patient(run_example: RunExample) -> None:
    printed = run_example("own_csv", *BASE, "--patients", "5")
    counts = re.findall(r"^(\w+) +(\d+) images of +(\d+) patients$", printed, re.MULTILINE)
    assert [split for split, _, _ in counts] == ["train", "val", "test"]
    assert all(int(images) == 3 * int(patients) for _, images, patients in counts)
    assert sum(int(patients) for _, _, patients in counts) == 20
    assert "patients in two splits: 0" in printed
    assert re.search(r"accuracy on the test patients: \d\.\d{3}", printed)
    assert re.search(r"over 3 folds of whole patients: \d\.\d{3} ± \d\.\d{3}", printed)


@pytest.fixture
def benchmark_peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the example as a module."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("benchmark_peers")


@pytest.mark.deep
def test_benchmark_peers_times_installed_peers_and_names_absent_ones(
    benchmark_peers: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    script = EXAMPLES / "benchmark_peers.py"  # a process, as its own processes import it again
    small = ("--size", "32", "--number", "8", "--rounds", "2", "--rest", "0", "--json")
    run = subprocess.run(
        [sys.executable, script, *small], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    benchmark_peers.show(document)
    printed = capsys.readouterr().out
    here = [peer for peer in benchmark_peers.PEERS if not peer.is_absent()]
    assert [row["peer"] for row in document["peers"]] == [peer.name for peer in here]
    spread = r"\d+\.\d\d \(\d+\.\d\d–\d+\.\d\d\)"
    for peer in here:
        row = rf"^\| {peer.name} \| {peer.precision} (\| {spread} ){{3}}\| \d+ \| (error|cosine) "
        assert re.search(row, printed, re.MULTILINE)
    assert document["peers"][0]["ratio"] == [1, 1, 1]
    assert all(len(row["ratio"]) == 3 and min(row["ratio"]) > 0 for row in document["peers"])
    for name in {peer.name for peer in benchmark_peers.PEERS} - {peer.name for peer in here}:
        assert f"\n{name}: absent (pip install brainfeat[bench])\n" in printed


def test_benchmark_peers_knows_absent_from_installed(benchmark_peers: ModuleType) -> None:
    def absent(find: Callable[[str], object]) -> set[str]:
        return {peer.name for peer in benchmark_peers.PEERS if peer.is_absent(find)}

    assert absent(lambda _package: object()) == set()
    others = {"PyTorch", "OpenVINO", "OpenVINO by NNCF", "ONNX Runtime", "ncnn"}
    assert absent(lambda _package: None) == others | {"brainfeat"}
    assert absent(lambda package: package != "nncf" or None) == {"OpenVINO by NNCF"}
    assert absent(lambda package: package != "tf2onnx" or None) == {"ONNX Runtime"}


def test_benchmark_peers_goes_on_without_one_that_failed(
    benchmark_peers: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = object.__new__(benchmark_peers.Worker)
    worker.peer = benchmark_peers.PEERS[0]
    worker.seconds = {"files": []}
    worker.connection, theirs = multiprocessing.Pipe()
    theirs.close()
    for work, *arguments in ((worker.time, "files", 0), (worker.finish,), (worker.check, None)):
        assert not benchmark_peers.attempt(worker, work, *arguments)
    assert capsys.readouterr().err.count("Keras script in float32 failed, and is left out") == 3


def test_benchmark_peers_names_what_cannot_be_imported(
    benchmark_peers: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(*_: object) -> None:
        raise ImportError("libcudnn.so.9: cannot open shared object file\nNo such file")

    worker = object.__new__(benchmark_peers.Worker)
    worker.peer = dataclasses.replace(benchmark_peers.PEERS[2], prepare=prepare)
    worker.connection, theirs = multiprocessing.Pipe()
    benchmark_peers.serve(theirs, worker.peer, None)
    assert not benchmark_peers.attempt(worker, worker.check, None)
    line = "PyTorch in float32 failed, and is left out; it cannot be imported (libcudnn.so.9: "
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith(line)
    assert worker.reason.endswith("object file No such file")


@pytest.mark.slow
def test_benchmark_peers_leaves_no_process(
    benchmark_peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    peers = [benchmark_peers.PEERS[0]] * 2
    with pytest.raises(ZeroDivisionError), benchmark_peers.running(peers, None) as workers:
        fail(workers)
    for worker in workers:
        worker.process.join(60)
        assert worker.process.exitcode is not None


def fail(workers: list[object]) -> None:
    assert len(workers) == 2
    raise ZeroDivisionError


def test_benchmark_peers_counts_only_what_agrees(benchmark_peers: ModuleType) -> None:
    expected = np.random.default_rng(0).random((4, 512))
    compare = benchmark_peers.compare
    assert compare(expected * (1 + 1e-6), expected).holds("float32")
    rounded = compare(expected * (1 + 1e-3 * (-1) ** np.arange(512)), expected)
    assert not rounded.holds("float32")
    assert rounded.holds("bfloat16")
    assert not compare(expected[::-1], expected).holds("bfloat16")
    assert not compare(expected * np.nan, expected).holds("float32")


def test_benchmark_peers_takes_one_of_copies(benchmark_peers: ModuleType, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "slices", patients_per_class=2, slices_per_patient=1, size=32)
    glioma = tmp_path / "slices" / "Training" / "glioma"
    (glioma / "copy.png").write_bytes(next(glioma.glob("*.png")).read_bytes())
    job = benchmark_peers.Job(tmp_path / "job", 32)
    benchmark_peers.write_images(job, tmp_path / "slices", 8)
    assert len({path.read_bytes() for path in job.find_images()}) == 8
    with pytest.raises(SystemExit, match="has 8 different JPEG and PNG files, fewer than 9"):
        benchmark_peers.write_images(job, tmp_path / "slices", 9)


def run_alone(name: str, *arguments: str) -> str:
    """Run an example in a process of its own: it changes private settings, or measures memory."""
    words = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_precisions_compares_features_and_heads(run_example: RunExample, tmp_path: Path) -> None:
    table = write_phantoms(tmp_path / "slices", patients_per_class=8, slices_per_patient=2, size=48)
    words = (str(table), *BASE, "--weights", "random", "--precision", "float32", "bfloat16")
    first, _, *rows = run_example("precisions", *words).splitlines()
    assert first == "mobilenet-0.75, 64 images"
    found = [re.split(r"  +", row) for row in rows]
    assert [row[0] for row in found] == ["float32", "bfloat16"]
    assert found[0][2:4] == ["1.000000", "1.00000"]
    assert 0.9 < float(found[1][3]) <= float(found[1][2]) < 1
    assert all(re.search(r"of \d+$", row[-1]) for row in found)


@pytest.mark.deep
def test_benchmark_rewriting_compares_with_the_plain_base() -> None:
    printed = run_alone(
        "benchmark_rewriting", *BASE, "--batch", "2", "--rounds", "1", "--weights", "random"
    )
    assert "mobilenet-0.75, 32 pixels, batch of 2" in printed
    rows = re.findall(r"^(\w+ \w+) +[\d.]+ +([\d.]+) +(\d\.\d+) +(\S+)$", printed, re.MULTILINE)
    names = [name for name, *_ in rows]
    assert names[:4] == ["plain float32", "keras float32", "keras bfloat16", "keras float16"]
    assert names[4] == "openvino float32"
    found = {name: float(difference) for name, *_, difference in rows}
    assert max(found["keras float32"], found["openvino float32"]) < 1e-4 < found["keras bfloat16"]
    assert rows[0][1] == "1.00"


@pytest.mark.slow
def test_benchmark_memory_prints_the_peak_of_each_command() -> None:
    options = ("--number", "2", "3", "--size", "32", "--precision", "float32")
    header, *lines = run_alone("benchmark_memory", *options).splitlines()
    assert header.split() == ["precision", "images", "seconds", "peak,", "MB"]
    assert [line.split()[:2] for line in lines] == [["float32", "2"], ["float32", "3"]]
    assert all(20 < float(line.split()[3]) < 2_000 for line in lines)


@pytest.mark.slow
def test_benchmark_bags_prints_a_line_for_each_command() -> None:
    options = ("--patients", "60", "--slices", "3", "--heads", "lda", "--epochs", "1")
    header, *lines = run_alone("benchmark_bags", *options).splitlines()
    assert header.split() == ["bag", "head", "seconds", "peak,", "MB"]
    assert [line.split()[:2] for line in lines] == [["mean", "lda"], ["attention", "attention"]]


def test_benchmark_layers_prints_a_ratio_for_each_way(run_example: RunExample) -> None:
    small = ("--backbone", "mobilenet-0.75", "--size", "32", "--number", "16", "--repeats", "1")
    lines = run_example("benchmark_layers", *small).splitlines()
    assert [line[:16].strip() for line in lines] == ["one layer", "three layers", "three and a map"]
    assert lines[0].split()[-5] == "1.000"


@pytest.mark.slow
def test_benchmark_maps_prints_a_line_for_each_head() -> None:
    options = ("--images", "100", "--heads", "se", "cbam", "--epochs", "1")
    header, *lines = run_alone("benchmark_maps", *options).splitlines()
    assert header.split() == ["images", "head", "seconds", "peak,", "MB"]
    assert [line.split()[:2] for line in lines] == [["100", "se"], ["100", "cbam"]]


@pytest.mark.slow
def test_benchmark_streams_prints_a_line_for_each_batch(run_example: RunExample) -> None:
    small = ("--backbone", "mobilenet-0.75", "--size", "32", "--number", "2", "--rounds", "1")
    options = ("--precision", "float32", "--streams", "1", "--batch", "1", "2")
    printed = run_example("benchmark_streams", *small, *options)
    lines = [line.split() for line in printed.splitlines()[1:]]
    assert [line[:3] for line in lines] == [["float32", "1", "1"], ["float32", "1", "2"]]


@pytest.mark.deep
def test_benchmark_tried_prints_a_line_for_each_trial() -> None:
    lines = run_alone("benchmark_tried", "--divide", "7").splitlines()
    assert len(lines) == 10
    assert all(re.search(r": \w+ [\d.]+ ms, \w+ [\d.]+ ms", line) for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["table", "shuffled"])
def test_benchmark_merge_prints_seconds_and_megabytes(tmp_path: Path, order: str) -> None:
    words = ["--rows", "2500", "--dimensions", "4", "--order", order, "--folder", str(tmp_path)]
    printed = run_alone("benchmark_merge", *words)
    rows = re.findall(r"^([\w ,]+?) +([\d.]+) +([\d,]+) +([\d.]+|nan)$", printed, re.MULTILINE)
    names = [name for name, *_ in rows]
    assert names[:3] == ["write the shards", "copy the shards", "merge"]
    assert names[-2:] == ["change one label", "change nothing"]
    assert rows[1][3] == "1.00"
    assert not list(tmp_path.iterdir())


# The peers are five libraries, each called as its users would call it, and a fair comparison; the
# other scripts have a line or more for each thing that docs/benchmarks.md compares.
LONGER = {
    "benchmark_growth": 90,
    "leakage": 95,
    "precisions": 95,
    "readme_picture": 90,
    "odd_images": 120,
    "near_threshold": 130,
    "copy_threshold": 165,
    "benchmark_peers": 320,
    "peers": 340,
    "benchmark_rewriting": 100,
    "benchmark_tried": 145,
    "benchmark_merge": 210,
    "benchmark_audit": 240,
}


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_example_is_short(script: Path) -> None:
    lines = len(script.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGER.get(script.stem, 80)
