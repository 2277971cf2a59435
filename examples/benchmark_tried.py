"""Time the optimisations of VGG16 on a CPU, adopted or not.

    python examples/benchmark_tried.py
    python examples/benchmark_tried.py --divide 7      # small maps, for a test

The variants of each trial take turns in this process; a line shows their median milliseconds.
"""

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
import tensorflow as tf

from brainfeat import runtime
from brainfeat.extraction import acceleration, openvino_layers, winograd
from brainfeat.extraction.backbones import Backbone, load_backbone

keras = runtime.import_keras()
NOISE = np.random.default_rng(0)
# Pixels, channels and filters of a layer of each block.
LAYERS = (224, 64, 64), (112, 64, 128), (112, 128, 128), (56, 256, 256), (14, 512, 512)


def compare(title: str, **work: Callable[[], object]) -> None:
    """Time functions in turns, after one round of warm-up, and print a line."""
    seconds = {name: [] for name in work}
    for counted in (False, *[True] * 5):
        for name, piece in work.items():
            started = time.perf_counter()
            piece()
            if counted:
                seconds[name].append(1e3 * (time.perf_counter() - started))
    print(f"{title}: " + ", ".join(f"{name} {median(ms):.1f} ms" for name, ms in seconds.items()))


def try_fusion(size: int) -> None:
    """Transform 8 maps of the second block with fused operations, and without fusion."""
    maps = tf.constant(NOISE.random((8, size, size, 128), np.float32))
    fused = runtime.fuse(acceleration.transform_images)
    plain = tf.function(acceleration.transform_images, autograph=False)
    compare(
        f"Winograd's transform of 8 images, {size} pixels, 128 channels",
        fused=lambda: fused(maps),
        not_fused=lambda: plain(maps),
    )


def try_layers(size: int, channels: int, filters: int) -> None:
    """Compute one convolution of 8 images directly and by Winograd's method."""
    inputs = keras.Input((size, size, channels))
    layer = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")
    direct = keras.Model(inputs, layer(inputs))
    acceleration._FEWEST_CHANNELS, winograd.LEAST_FLOP = (1, 1), 0
    rewritten = acceleration.accelerate(direct, winograd=True)
    maps = NOISE.random((8, size, size, channels), np.float32)
    works = {
        name: as_function(model) for name, model in (("direct", direct), ("winograd", rewritten))
    }
    pieces = {name: (lambda call=call: call(maps)) for name, call in works.items()}
    compare(f"{size} pixels, {channels} to {filters} channels, 8 images", **pieces)


def as_function(model: object) -> Callable:
    """Compile a model whose output stays a tensor."""
    traced = tf.function(model, autograph=False)
    return lambda images: traced(tf.constant(images))


def compare_on(images: np.ndarray, title: str, bases: dict[str, Callable]) -> None:
    """Time whole bases on the same images."""
    compare(title, **{name: (lambda base=base: base(images)) for name, base in bases.items()})


def try_bases(size: int) -> None:
    """Compute the features of 8 images by the whole base."""
    images = NOISE.random((8, size, size, 3), np.float32)
    bases = {}
    for fewest in (128, 129):
        acceleration._FEWEST_CHANNELS = fewest, fewest
        bases[f"from_{fewest}_channels"] = load(size).compile()[0]
    compare_on(images, "VGG16 in float32, batch of 8", bases)
    scaled = load(size, precision="bfloat16").compile()[0]
    unit = load(size, precision="bfloat16", scaling="unit").compile()[0]
    keras.config.set_dtype_policy("bfloat16")
    stored = keras.applications.VGG16(False, weights=None, input_shape=images.shape[1:])
    keras.config.set_dtype_policy("float32")
    bases = {"scaled": scaled, "not_scaled": unit, "weights_stored_in_it": as_function(stored)}
    compare_on(images, "VGG16 in bfloat16, batch of 8", bases)


def load(size: int, *, engine: str = "keras", **options: str) -> Backbone:
    """Load VGG16 with random weights."""
    return load_backbone("vgg16", weights="random", input_size=size, engine=engine, **options)


def try_openvino(size: int) -> None:
    """Compute the features of 4 images by OpenVINO, with more and more convolutions rewritten."""
    images = NOISE.random((4, size, size, 3), np.float32)
    bases = {}
    for narrower, wider in ((4096, 4096), (256, 256), (128, 256), (128, 128), (64, 128)):
        openvino_layers.FEWEST_CHANNELS = narrower, wider
        bases[f"winograd_from_{narrower}_and_{wider}"] = base = load(size, engine="openvino")
        base(images)
    compare_on(images, "VGG16 in float32 by OpenVINO, batch of 4", bases)


def try_grey(size: int) -> None:
    """Compute the first convolution with one channel and with three."""
    images = NOISE.random((8, size, size, 3), np.float32)
    first = {}
    for name, channels in (("grey", 1), ("colour", 3)):
        inputs = keras.Input((size, size, channels))
        layer = keras.layers.Conv2D(64, 3, padding="same", activation="relu")
        first[name] = as_function(keras.Model(inputs, layer(inputs)))
    compare(
        "first convolution, 8 images",
        grey=lambda: first["grey"](images[..., :1]),
        colour=lambda: first["colour"](images),
    )


def main() -> None:
    """Print a line for each trial."""
    parser = argparse.ArgumentParser(description="Time optimisations of VGG16.")
    parser.add_argument("--divide", type=int, default=1, help="divide all sizes by this number")
    divisor = parser.parse_args().divide
    try_fusion(112 // divisor)
    for size, channels, filters in LAYERS:
        try_layers(size // divisor, channels, filters)
    try_bases(224 // divisor)
    try_openvino(224 // divisor)
    try_grey(224 // divisor)


if __name__ == "__main__":
    main()
