"""Draw the picture of the README: synthetic slices, predictions with heat maps, and an abstention.

    python examples/readme_picture.py -o docs/_static/predictions.png --backbone mobilenet-0.75

The head is fitted on synthetic patients; the slices are of other patients. The last image is an
inverted slice, which is out of distribution.
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from brainfeat import Predictor, extract, fit_head, read_table
from brainfeat.extraction.backbones import Backbone, load_backbone
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.heads.bundle import HeadBundle
from brainfeat.phantoms import write_phantoms
from brainfeat.prediction.explanation import explain
from brainfeat.readers import read_image

BACKGROUND, INK, FAINT = "#14181d", "#f2f2f2", "#a9b1ba"  # readable on a light or a dark page


def main(arguments: list[str] | None = None) -> None:
    """Fit a head on synthetic patients and draw what it predicts for others."""
    parser = argparse.ArgumentParser(description="Draw the picture of the README.")
    parser.add_argument("-o", "--output", required=True, help="PNG file to write")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=224, help="input size of the base in pixels")
    parser.add_argument("--patients", type=int, default=30, help="synthetic patients of a class")
    chosen = parser.parse_args(arguments)

    options = {"weights": chosen.weights, "input_size": chosen.size}
    with tempfile.TemporaryDirectory() as folder:
        table = read_table(
            write_phantoms(Path(folder, "slices"), patients_per_class=chosen.patients)
        )
        features = Path(folder, "features.h5")
        extract(table, features, backbone=chosen.backbone, **options)
        bundle = fit_head(features, head="logistic")
        # The third of four slices of the last test patient of each class.
        tests = {
            table.labels[row]: row for row, split in enumerate(table.splits) if split == "test"
        }
        paths = {name: table.absolute_path(row - 1) for name, row in tests.items()}
        with Image.open(paths["notumor"]) as slice_without_tumour:
            ImageOps.invert(slice_without_tumour.convert("L")).save(Path(folder, "inverted.png"))
        paths["inverted slice"] = Path(folder, "inverted.png")
        draw(paths, bundle, load_backbone(chosen.backbone, **options), Path(chosen.output))


def draw(paths: dict[str, Path], bundle: HeadBundle, base: Backbone, output: Path) -> None:
    """Draw each image above its heat map and the prediction."""
    predictor = Predictor(bundle, backbone=base)
    figure = Figure(figsize=(1.8 * len(paths), 4.1), facecolor=BACKGROUND)
    axes = figure.subplots(2, len(paths), squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.08, top=0.93, wspace=0.04, hspace=0.04)
    for column, (title, path) in enumerate(paths.items()):
        (prediction,) = predictor.predict([path])
        pixels = preprocess_image(read_image(path), size=base.input_size)
        heat = explain(bundle, pixels[np.newaxis], backbone=base).maps[0]
        margin = base.input_size // 14
        pixels, heat = (array[margin:-margin, margin:-margin] for array in (pixels, heat))
        for place in axes[:, column]:
            place.set_axis_off()
            place.imshow(pixels)
        axes[0, column].set_title(title, color=FAINT, fontsize=11)
        label = prediction.decision.replace("-", " ")
        if prediction.decision in prediction.probabilities:
            axes[1, column].imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.7 * heat)
            label += f" ({prediction.probabilities[prediction.decision]:.2f})"
        style = {"color": INK, "fontsize": 11, "fontweight": "bold", "ha": "center", "va": "top"}
        axes[1, column].text(0.5, -0.05, label, transform=axes[1, column].transAxes, **style)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    with Image.open(buffer) as drawn:
        few = drawn.convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    few.save(output, optimize=True)


if __name__ == "__main__":
    main()
