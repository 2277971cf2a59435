"""The libraries that benchmark_peers.py compares, each as one of its users would call it.

Each computes VGG16's pooled features with the same weights, which `write_weights` writes in the
format of each library.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from brainfeat import FeatureCache, extract, read_table, runtime
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.int8_calibration import join_ranges
from brainfeat.extraction.quantization import Quantization

Array = np.ndarray
BLOCKS = (2, 2, 3, 3, 3)  # convolutions before each pooling of VGG16
CALIBRATED = 32  # images
MEAN = np.array([103.939, 116.779, 123.68], np.float32)  # ImageNet's blue, green and red


class Job(NamedTuple):
    """The input of every peer: a folder of images and weights, and the input size of VGG16."""

    folder: Path
    size: int

    def find_images(self) -> list[Path]:
        """Return the images in the order of their names."""
        return sorted(self.folder.glob("images/*/*"))


class Passes(NamedTuple):
    """The two passes that are timed."""

    files: Callable[[], Array]  # of the job's images
    memory: Callable[[Array], Array]  # of RGB pixels (n, h, w, 3), float32 from 0 to 255


# What a user of each library would write


def keras_script(job: Job, _precision: str, batch_size: int, *, autotune: bool = True) -> Passes:
    """Predict on an image_dataset_from_directory.

    At the end, predict mostly waits for tf.data's autotuner, whose intervals double from 10 ms: a
    pass ends after 2.55, 5.11 or 10.23 s. Hence the switch.
    """
    keras = runtime.import_keras()  # import keras, without TensorFlow's log messages
    preprocess = keras.applications.vgg16.preprocess_input
    model = keras.applications.VGG16(
        include_top=False,
        pooling="avg",
        weights=str(job.folder / "vgg16.weights.h5"),
        input_shape=(job.size, job.size, 3),
    )

    def files() -> Array:
        images = keras.utils.image_dataset_from_directory(
            job.folder / "images",
            label_mode=None,
            image_size=(job.size, job.size),
            batch_size=batch_size,
            shuffle=False,
            verbose=False,
        ).map(preprocess)
        if not autotune:
            import tensorflow as tf

            options = tf.data.Options()
            options.autotune.enabled = False
            images = images.with_options(options)
        return model.predict(images, verbose=0)

    def memory(pixels: Array) -> Array:
        batches = split(preprocess(pixels.copy()), batch_size)
        return np.concatenate([model.predict_on_batch(batch) for batch in batches])

    return Passes(files, memory)


def pytorch(job: Job, precision: str, batch_size: int) -> Passes:
    """Run a Sequential in channels_last under inference_mode."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for block in read_weights(job):
        for kernel, bias in block:
            convolution = nn.Conv2d(*kernel.shape[2:], 3, padding=1)
            convolution.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
            convolution.bias.data = torch.from_numpy(bias)
            layers += [convolution, nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
    dtype = getattr(torch, precision)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    model = model.to(dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def compute(images: Array) -> Array:
        # NumPy's order of memory, seen as (n, c, h, w), is what torch calls channels_last.
        return model(torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype)).float().numpy()

    return make_passes(job, batch_size, compute)


def openvino(job: Job, precision: str, batch_size: int) -> Passes:
    """Run Keras's export with all cores on one batch, as the latency hint requests."""
    import openvino
    from openvino.properties import hint

    types = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}
    hints = {
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.inference_precision: types[precision],
    }
    model = openvino.compile_model(job.folder / "vgg16.xml", "CPU", hints)
    return make_passes(job, batch_size, lambda images: model(images, share_outputs=False)[0])


def openvino_int8(job: Job, _precision: str, batch_size: int) -> Passes:
    """Quantize Keras's export by NNCF, which takes the ranges of some of the images."""
    import openvino

    with redirect_stdout(sys.stderr):  # NNCF prints what it does
        import nncf

        images = [to_bgr(read_pixels([path], job.size)) for path in find_calibrated(job)]
        plain = openvino.Core().read_model(job.folder / "vgg16.xml")
        quantized = nncf.quantize(plain, nncf.Dataset(images), subset_size=len(images))
    model = openvino.compile_model(quantized, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return make_passes(job, batch_size, lambda images: model(images, share_outputs=False)[0])


def find_calibrated(job: Job) -> list[Path]:
    """Return the images from which int8 takes its ranges: evenly spread, and not all."""
    images = job.find_images()
    return images[:: max(len(images) // CALIBRATED, 1)][:CALIBRATED]


def onnx_runtime(job: Job, _precision: str, batch_size: int) -> Passes:
    """Run Keras's export in a session on the CPU."""
    import onnxruntime

    path = job.folder / "vgg16.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return make_passes(job, batch_size, lambda images: session.run(None, {name: images})[0])


def ncnn(job: Job, _precision: str, batch_size: int) -> Passes:
    """Run a Net on one image at a time, with Winograd's method."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = runtime.usable_cores()
    net.load_param(str(job.folder / "ncnn.param"))
    net.load_model(str(job.folder / "ncnn.bin"))

    def compute_one(image: Array) -> Array:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))  # ncnn reads it, and keeps no copy
        extractor = net.create_extractor()
        extractor.input("0", ncnn.Mat(planes))
        return np.array(extractor.extract("features")[1])

    def compute(images: Array) -> Array:
        return np.stack([compute_one(image) for image in images])

    return make_passes(job, batch_size, compute)


def brainfeat(job: Job, precision: str, batch_size: int | None, *, engine: str = "auto") -> Passes:
    """Run stage one into a new cache."""
    options = {"weights": job.folder / "vgg16.weights.h5", "input_size": job.size}
    if precision == "int8":
        options["quantization"] = calibrate(load_backbone("vgg16", **options), job)
    base = load_backbone("vgg16", precision=precision, engine=engine, **options)
    in_memory = batch_size or base.batch_size

    def files() -> Array:
        with tempfile.TemporaryDirectory() as folder:
            features = Path(folder) / "features.h5"
            table = read_table(job.folder / "images")
            extract(table, features, backbone=base, batch_size=batch_size)
            with FeatureCache.open(features) as cache:
                return cache.X[:]

    def memory(pixels: Array) -> Array:
        return np.concatenate([base(batch / 255) for batch in split(pixels, in_memory)])

    return Passes(files, memory)


def calibrate(base: Any, job: Job) -> str:
    """Take the ranges of some of the images, as stage one does of training images."""
    paths = find_calibrated(job)
    images = (read_pixels([path], job.size).astype(np.uint8) for path in paths)
    ranges = join_ranges(base.name, [found.ranges for found in base.observe(images, "float32")])
    return Quantization(images=len(paths), images_sha256="0" * 64, ranges=ranges).text


def make_passes(job: Job, batch_size: int, compute: Callable[[Array], Array]) -> Passes:
    """Make both passes of a function of batches; a thread reads the next batch meanwhile."""

    def files() -> Array:
        features, batches = [], split(job.find_images(), batch_size)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(read, batches[0])
            for batch in [*batches[1:], []]:
                images, ahead = ahead.result(), reader.submit(read, batch)
                features.append(compute(images))
        return np.concatenate(features)

    def read(paths: list[Path]) -> Array:
        return to_bgr(read_pixels(paths, job.size))

    def memory(pixels: Array) -> Array:
        return np.concatenate([compute(to_bgr(batch)) for batch in split(pixels, batch_size)])

    return Passes(files, memory)


def split(items: Any, size: int) -> list[Any]:
    """Cut a sequence into batches."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def read_pixels(paths: list[Path], size: int) -> Array:
    """Decode and resize images with Pillow."""
    pixels = np.empty((len(paths), size, size, 3), np.float32)
    for row, path in zip(pixels, paths, strict=True):
        row[:] = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return pixels


def to_bgr(pixels: Array) -> Array:
    """Preprocess as Keras's preprocess_input does for VGG16."""
    return pixels[..., ::-1] - MEAN


@dataclass(frozen=True)
class Peer:
    """A library and its fastest batch size; brainfeat chooses its own."""

    name: str
    precision: str
    batch_size: int | None
    prepare: Callable[[Job, str, Any], Passes]
    packages: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name and precision."""
        return f"{self.name} in {self.precision}"

    def is_absent(self, find: Callable[[str], object] = find_spec) -> bool:
        """Return whether a package is not installed."""
        return any(find(package) is None for package in self.packages)


PEERS = (
    Peer("Keras script", "float32", 32, keras_script),
    Peer("Keras, no autotune", "float32", 32, partial(keras_script, autotune=False)),
    Peer("PyTorch", "float32", 1, pytorch, ("torch",)),
    Peer("PyTorch", "bfloat16", 32, pytorch, ("torch",)),
    Peer("OpenVINO", "float32", 8, openvino, ("openvino",)),
    Peer("OpenVINO", "bfloat16", 8, openvino, ("openvino",)),
    Peer("OpenVINO by NNCF", "int8", 8, openvino_int8, ("openvino", "nncf")),
    Peer("ONNX Runtime", "float32", 16, onnx_runtime, ("onnxruntime", "tf2onnx")),
    Peer("ncnn", "float32", 1, ncnn, ("ncnn",)),
    Peer("brainfeat by Keras", "float32", None, partial(brainfeat, engine="keras")),
    Peer("brainfeat by Keras", "bfloat16", None, partial(brainfeat, engine="keras")),
    Peer("brainfeat", "float32", None, brainfeat),
    Peer("brainfeat", "bfloat16", None, brainfeat),
    Peer("brainfeat", "auto", None, brainfeat),
    Peer("brainfeat", "int8", None, brainfeat, ("openvino",)),
)


# The weights


def write_weights(job: Job, packages: set[str]) -> None:
    """Write random weights in the format of each library, and the features of Keras."""
    keras = runtime.import_keras()
    base = load_backbone("vgg16", weights="random", input_size=job.size).base
    base.save_weights(job.folder / "vgg16.weights.h5")
    np.savez(job.folder / "vgg16.npz", *base.get_weights())
    model = keras.Model(base.input, keras.layers.GlobalAveragePooling2D()(base.output))
    if "openvino" in packages:
        model.export(str(job.folder / "vgg16.xml"), format="openvino", verbose=False)
    if "tf2onnx" in packages:
        model.predict_on_batch(
            np.zeros((1, job.size, job.size, 3), np.float32)
        )  # Keras asks for it
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # Keras's own
        model.export(str(job.folder / "vgg16.onnx"), format="onnx", verbose=False)
    if "ncnn" in packages:
        write_ncnn(job)
    memory = keras_script(job, "float32", 32).memory
    batches = [memory(read_pixels(paths, job.size)) for paths in split(job.find_images(), 32)]
    np.save(job.folder / "expected.npy", np.concatenate(batches))


def read_weights(job: Job) -> Iterator[list[tuple[Array, Array]]]:
    """Yield the kernels and biases of each block."""
    with np.load(job.folder / "vgg16.npz") as arrays:
        weights = iter(arrays.values())
        for convolutions in BLOCKS:
            yield [(next(weights), next(weights)) for _ in range(convolutions)]


def write_ncnn(job: Job) -> None:
    """Write ncnn's two files: one line of text per layer, and the weights in order."""
    layers = [("Input", "0=0")]
    with (job.folder / "ncnn.bin").open("wb") as file:
        for block in read_weights(job):
            for kernel, bias in block:
                shape = f"0={bias.size} 1=3 4=1 5=1 6={kernel.size} 9=1"  # 3 by 3, padded, ReLU
                layers.append(("Convolution", shape))
                file.write(bytes(4))  # the following values are float32
                file.write(kernel.transpose(3, 2, 0, 1).tobytes() + bias.tobytes())
            layers.append(("Pooling", "0=0 1=2 2=2"))
    layers.append(("Pooling", "0=1 4=1"))  # global mean
    lines = ["7767517", f"{len(layers)} {len(layers)}", "Input 0 0 1 0"]
    for number, (kind, parameters) in enumerate(layers[1:], start=1):
        name = number if number < len(layers) - 1 else "features"
        lines.append(f"{kind} {number} 1 1 {number - 1} {name} {parameters}")
    (job.folder / "ncnn.param").write_text("\n".join(lines) + "\n", encoding="utf-8")
