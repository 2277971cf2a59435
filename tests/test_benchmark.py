"""Tests of the benchmark on a tiny base and tiny images."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from brainfeat import benchmark, runtime
from brainfeat.benchmark import Benchmark, Spread, find_bf16_peak, run_benchmark, stages
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cli import main
from brainfeat.errors import ImageReadError, ParameterError, TableError
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.cropping import CROPS, Crop
from brainfeat.extraction.preprocessing import preprocess_image, scale_pixels
from brainfeat.phantoms import write_phantoms
from brainfeat.readers import read_pixels

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FAST = {"backbone": "mobilenet-0.75", "input_size": 32, "batch_size": 4, "number": 8}
GPU = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit one head, on few rows, and time each part once."""
    shorten(monkeypatch, heads=("logistic",))


def shorten(patch: pytest.MonkeyPatch, heads: tuple[str, ...]) -> None:
    patch.setattr(stages, "HEADS", heads)
    patch.setattr(stages, "STAGE_TWO_ROWS", 80)
    patch.setattr(stages, "_SHORTEST_SECONDS", 0.0)


@pytest.fixture(scope="module")
def progress() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(progress: list[str]) -> Benchmark:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, heads=stages.HEADS)
        return run_benchmark(
            **FAST, precisions=["bfloat16"], repeats=1, n_jobs=2, progress=progress.append
        )


@pytest.fixture(scope="module")
def on_gpu() -> Benchmark:
    """Run where a card is found, of which the name is all that is there."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, heads=("logistic",))
        patch.setattr(runtime, "accelerators", lambda: [GPU])
        return run_benchmark(**FAST, precisions=["float32"], repeats=1)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = write_phantoms(
        tmp_path_factory.mktemp("bench") / "slices",
        patients_per_class=2,
        slices_per_patient=2,
        size=48,
    )
    return table.parent


def spreads(document: object) -> list[dict[str, float]]:
    """Find the objects of median, min and max in a document."""
    if not isinstance(document, dict):
        return []
    if set(document) == {"median", "min", "max"}:
        return [document]
    return [spread for value in document.values() for spread in spreads(value)]


@pytest.mark.slow
class TestResult:
    def test_says_what_was_run(self, result: Benchmark) -> None:
        assert (result.backbone, result.input_size) == ("mobilenet-0.75", 32)
        assert {part.batch_size for part in result.compute.values()} == {4}
        assert (result.images, result.data, result.repeats) == (8, "phantoms", 1)
        assert result.processor == runtime.processor()
        assert result.versions == runtime.versions()
        assert result.backend == "tensorflow"

    def test_has_each_part(self, result: Benchmark) -> None:
        assert list(result.decode) == [1, 2]
        assert list(result.compute) == ["float32", "bfloat16"]
        assert set(result.end_to_end) in ({"float32"}, {"float32", "bfloat16"})
        assert list(result.stage_two) == ["logistic", "dense"]
        assert result.stage_two["logistic"].epochs is None
        assert result.stage_two["dense"].epochs > 0

    def test_every_value_is_positive_and_in_order(self, result: Benchmark) -> None:
        found = spreads(result.to_dict())
        assert len(found) == 2 * 2 + 2 * 2 + 2 * len(result.end_to_end) + 2
        assert all(0 < spread["min"] <= spread["median"] <= spread["max"] for spread in found)
        assert result.seconds > 0

    def test_a_thing_is_one_times_itself(self, result: Benchmark) -> None:
        one = Spread(median=1.0, min=1.0, max=1.0)
        assert result.compute["float32"].ratio_to_float32 == one
        assert result.decode[1].ratio_to_one_thread == one

    def test_tflops_follow_from_the_rate(self, result: Benchmark) -> None:
        for part in result.compute.values():
            expected = part.images_per_second.median * result.gflop_per_image / 1000
            assert part.tflops == pytest.approx(expected)

    def test_no_gpu_has_no_peak(self, result: Benchmark) -> None:
        assert result.devices == ()
        assert result.bf16_peak_tflops is None
        assert result.compute["float32"].peak_fraction is None

    def test_is_json_with_the_fields(self, result: Benchmark) -> None:
        document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert list(document) == [field.name for field in fields(Benchmark)]
        assert set(document["decode"]) == {"1", "2"}

    def test_progress_names_each_part(self, result: Benchmark, progress: list[str]) -> None:
        parts = [line.partition(":")[0] for line in progress]
        assert parts[:4] == ["starting the backend", "drawing 8 phantoms", "decode", "compute"]
        assert set(parts[4:-1]) == {"end to end"}
        assert parts[-1] == "stage two"


def test_spread_is_the_median_between_the_extremes() -> None:
    assert Spread.of([4.0, 1.0, 2.0]) == Spread(median=2.0, min=1.0, max=4.0)


def test_ratios_are_taken_within_a_repeat() -> None:
    assert Spread.ratio([2.0, 40.0], [1.0, 10.0]) == Spread(median=3.0, min=2.0, max=4.0)


def test_a_warm_up_is_not_counted_and_work_is_timed_in_turn() -> None:
    done: list[str] = []
    work = {name: lambda name=name: done.append(name) or 5 for name in "ab"}
    rates = stages._measure(work, 2)
    assert "".join(done) == "ab" + "abab"
    assert {name: len(values) for name, values in rates.items()} == {"a": 2, "b": 2}


def test_fast_work_is_repeated_until_it_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_SHORTEST_SECONDS", 0.02)
    done: list[int] = []
    rate = stages._time(lambda: done.append(1) or 1)
    assert len(done) > 2
    assert rate == pytest.approx(len(done) / 0.02, rel=0.5)


@pytest.mark.slow
class TestOnAGpu:
    def test_fraction_is_of_the_peak_of_the_card(self, on_gpu: Benchmark) -> None:
        assert on_gpu.devices == (GPU,)
        assert on_gpu.bf16_peak_tflops == find_bf16_peak(GPU)
        part = on_gpu.compute["float32"]
        assert part.peak_fraction == pytest.approx(part.tflops / on_gpu.bf16_peak_tflops)

    @pytest.mark.parametrize(
        ("device", "tflops"),
        [
            (GPU, 989.5),
            ("NVIDIA H100 PCIe", 756.5),
            ("NVIDIA H100 NVL", 835.5),
            ("NVIDIA H200", 989.5),
            ("NVIDIA A100-SXM4-80GB", 312.0),
            ("NVIDIA L40S", 362.05),
            ("NVIDIA L40", 181.05),
            ("NVIDIA L4", 121.0),
            ("NVIDIA A10", 125.0),
        ],
    )
    def test_known_cards(self, device: str, tflops: float) -> None:
        assert find_bf16_peak(device) == tflops

    @pytest.mark.parametrize(
        "device",
        [
            "gpu:0",
            "Tesla T4",
            "NVIDIA A10G",
            "NVIDIA GH200 480GB",
            "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
            "NVIDIA A100-40C",
            "",
        ],
    )
    def test_an_unknown_card_or_a_part_of_one_is_not_guessed(self, device: str) -> None:
        assert find_bf16_peak(device) is None


class TestPrecisions:
    @pytest.mark.parametrize(
        ("features", "devices", "expected"),
        [
            (["avx2", "avx512f"], [], ["float32"]),
            (["avx512_bf16"], [], ["float32", "bfloat16"]),
            (["amx_bf16", "avx512_fp16"], [], ["float32", "bfloat16", "float16"]),
            ([], [GPU], ["float32", "bfloat16", "float16"]),
        ],
    )
    def test_default_is_what_there_are_instructions_for(
        self, monkeypatch: pytest.MonkeyPatch, features, devices, expected
    ) -> None:
        monkeypatch.setattr(runtime, "processor", lambda: {"features": features})
        assert benchmark._choose(None, devices) == expected

    def test_float32_is_always_measured_and_first(self) -> None:
        choose = benchmark._choose
        assert choose(["float16", "float32", "float16"], []) == ["float32", "float16"]


class TestData:
    def test_own_images_are_taken_evenly(self, slices: Path) -> None:
        table = stages.find_images(slices / "table.csv", 4, 0, slices, print)
        assert len(table) == 4
        assert table.class_names == ("glioma", "meningioma", "notumor", "pituitary")

    def test_all_are_taken_where_there_are_fewer(self, slices: Path) -> None:
        assert len(stages.find_images(slices / "table.csv", 1000, 0, slices, print)) == 16

    def test_phantoms_are_jpeg_of_the_usual_size(self, tmp_path: Path) -> None:
        from PIL import Image

        table = stages.find_images(None, 8, 0, tmp_path, print)
        with Image.open(table.absolute_path(0)) as image:
            assert (image.format, image.size) == ("JPEG", (224, 224))

    def test_an_image_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
        with pytest.raises(ImageReadError, match=r"broken\.jpg"):
            run_benchmark(tmp_path, **FAST)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TableError, match="nowhere"):
            run_benchmark(tmp_path / "nowhere", **FAST)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "whole"), [(7, 4), (8, 8), (3, 3)])
def test_end_to_end_has_whole_batches(tmp_path: Path, number: int, whole: int) -> None:
    assert make_stage_one(tmp_path, number)._extract("float32") == whole


def make_stage_one(tmp_path: Path, number: int, crop: Crop = "none") -> stages.StageOne:
    base = load_backbone("mobilenet-0.75", weights="random", input_size=32)
    return stages.StageOne(
        table=stages.find_images(None, number, 0, tmp_path, print),
        bases={"float32": base},
        crop=crop,
        batch_size=4,
        n_jobs=1,
        repeats=1,
        scratch=tmp_path,
        flop=None,
        peak=None,
        report=print,
    )


def test_images_are_cropped_as_stage_one_crops_them(tmp_path: Path) -> None:
    stage_one = make_stage_one(tmp_path, 4, "foreground")
    for file in stage_one._files:
        pixels = read_pixels(BytesIO(file.read_bytes()), name="x")
        expected = preprocess_image(pixels, size=32, crop=CROPS["foreground"])
        np.testing.assert_array_equal(scale_pixels(stage_one._load(file)), expected)


def test_synthetic_features_are_a_training_set_of_the_spec(tmp_path: Path) -> None:
    spec = FeatureSpec(backbone="vgg16", layer="x", n_features=16, weights_sha256="0" * 64)
    path = stages._write_features(tmp_path / "features.h5", spec, 0)
    with FeatureCache.open(path) as cache:
        assert cache.X.shape == (80, 16)
        assert cache.spec == spec
        assert cache.mask("train").all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "vgg17"}, "unknown backbone 'vgg17'"),
        ({"precisions": ["float8"]}, "unknown precision 'float8'"),
        ({"input_size": 8}, "input size 8; expected 32 to 4096"),
        ({"batch_size": 0}, "batch_size 0; expected an integer of at least 1"),
        ({"number": -1}, "number -1; expected"),
        ({"repeats": None}, "repeats None; expected"),
        ({"repeats": 1.5}, "repeats 1.5; expected"),
        ({"n_jobs": 0}, "n_jobs 0; expected"),
        ({"random_state": -1}, "random state -1; expected"),
    ],
)
def test_bad_options_are_refused_before_work_begins(options: dict, words: str) -> None:
    lines: list[str] = []
    with pytest.raises(ParameterError, match=re.escape(words)):
        run_benchmark(**{**FAST, **options}, progress=lines.append)
    assert lines == []


class TestCommand:
    ARGUMENTS = ["bench", "--backbone", "mobilenet-0.75", "--size", "32", "--number", "8"]

    def run(self, *arguments: str) -> int:
        try:
            main([*self.ARGUMENTS, *arguments])
        except SystemExit as stop:
            return int(stop.code)
        return 0

    @pytest.mark.slow
    def test_json_is_one_document_on_stdout(
        self, capsys: pytest.CaptureFixture[str], slices: Path
    ) -> None:
        arguments = ["--precision", "bfloat16", "--repeats", "1", "--jobs", "1"]
        assert self.run(*arguments, "--data", str(slices / "table.csv"), "--json") == 0
        captured = capsys.readouterr()
        document = json.loads(captured.out)
        assert list(document["compute"]) == ["float32", "bfloat16"]
        assert list(document["decode"]) == ["1"]
        assert document["compute"]["float32"]["batch_size"] == 8
        assert document["data"] == str(slices / "table.csv")
        assert "compute: float32, bfloat16" in captured.err

    @pytest.mark.slow
    def test_table_has_the_measurements(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        result: Benchmark,
    ) -> None:
        monkeypatch.setattr(benchmark, "run_benchmark", lambda *_, **__: result)
        assert self.run() == 0
        out = capsys.readouterr().out
        lines = [line.split() for line in out.splitlines()]
        assert ["float32", "1.00"] in [[line[0], line[4]] for line in lines if len(line) > 4]
        assert f"{result.compute['bfloat16'].ratio_to_float32.median:.2f}" in out
        assert re.search(rf"dense .* {result.stage_two['dense'].epochs} epochs", out)
        assert "gpu        none that the backend can use" in out
        assert "mobilenet-0.75 at 32 × 32" in out
        assert "peak" not in out

    @pytest.mark.slow
    def test_table_has_the_fraction_of_the_peak(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        on_gpu: Benchmark,
    ) -> None:
        monkeypatch.setattr(benchmark, "run_benchmark", lambda *_, **__: on_gpu)
        assert self.run() == 0
        out = capsys.readouterr().out
        assert f"gpu        {GPU}\n           989.5 TFLOP/s in dense bfloat16" in out
        assert re.search(r"float32 .* TFLOP/s, [\d.]+% of bf16 peak", out)

    def test_a_bad_option_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run("--backbone", "vgg17") == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1
        assert "unknown backbone 'vgg17'" in captured.err

    @pytest.mark.parametrize("option", ["--repeats", "--number", "--batch-size", "--jobs"])
    def test_zero_is_a_usage_error(self, capsys: pytest.CaptureFixture[str], option: str) -> None:
        assert self.run(option, "0") == 2
        assert option in capsys.readouterr().err


@pytest.mark.deep
@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_nothing_imports_tensorflow_under_jax() -> None:
    code = (
        "import sys\n"
        "sys.modules['tensorflow'] = None\n"
        "from brainfeat.benchmark import run_benchmark, stages\n"
        "stages.STAGE_TWO_ROWS, stages._SHORTEST_SECONDS = 80, 0.0\n"
        f"print(run_benchmark(**{FAST!r}, precisions=['float32'], repeats=1).backend)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "jax\n"
