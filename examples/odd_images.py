"""Count how often a head abstains on images that are not upright brain slices, by kind.

    python examples/odd_images.py head.h5 --images brain-mri --weights FILE

Photographs come with scikit-learn and Matplotlib, screenshots and patterns are drawn, and your own
slices are rotated, inverted and written on. The last row is the unchanged slices.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageDraw, ImageOps
from sklearn.datasets import load_sample_images

from brainfeat import Predictor, read_table

SIZE = 224
Draw = Callable[[np.random.Generator], Image.Image]


def main(arguments: list[str] | None = None) -> None:
    """Print one line for each kind of image."""
    parser = argparse.ArgumentParser(description="Count abstentions by kind of image.")
    parser.add_argument("head")
    parser.add_argument("--images", required=True, help="folder or CSV of slices; its test split")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--number", type=int, default=60, help="images of each kind")
    chosen = parser.parse_args(arguments)

    rng = np.random.default_rng(0)
    table = read_table(chosen.images)
    rows = [row for row, split in enumerate(table.splits) if split in ("test", "")]
    slices = [table.absolute_path(row) for row in rng.permutation(rows)[: chosen.number]]
    predictor = Predictor(chosen.head, weights=chosen.weights)
    print(f"{'':22}{'images':>7}{'out of distribution':>21}{'uncertain':>11}{'answered':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for kind, images in make_all(slices, chosen.number, rng):
            paths = [Path(folder, f"{number}.png") for number, _ in enumerate(images)]
            for path, image in zip(paths, images, strict=True):
                image.save(path)
            counts = Counter(answer.decision for answer in predictor.predict(paths))
            abstained = counts["out-of-distribution"], counts["uncertain"]
            answered = len(images) - sum(abstained)
            print(f"{kind:22}{len(images):7}{abstained[0]:21}{abstained[1]:11}{answered:10}")


def make_all(
    slices: list[Path], number: int, rng: np.random.Generator
) -> Iterator[tuple[str, list[Image.Image]]]:
    """Yield each kind with its images."""
    photographs = load_photographs()
    drawn: dict[str, Draw] = {
        "photograph": lambda rng: crop(photographs[rng.integers(len(photographs))], rng),
        "noise": lambda rng: Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)),
        "blank": lambda rng: Image.new("L", (SIZE, SIZE), int(rng.integers(256))),
        "screenshot with text": lambda rng: write(Image.new("L", (640, 480), 245), rng, ink=0),
    }
    for kind, draw in drawn.items():
        yield kind, [draw(rng) for _ in range(number)]
    opened = [Image.open(path).convert("L") for path in slices]
    yield "slice with text", [write(image.copy(), rng, ink=255) for image in opened]
    yield "inverted slice", [ImageOps.invert(image) for image in opened]
    yield "slice rotated by 90°", [image.rotate(90) for image in opened]
    yield "slice rotated by 180°", [image.rotate(180) for image in opened]
    yield "unchanged slice", opened


def load_photographs() -> list[Image.Image]:
    """Load the photographs that come with scikit-learn and Matplotlib."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as file:
        portrait = file.convert("RGB")
    return [*map(Image.fromarray, load_sample_images().images), portrait]


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut a random square out of an image, half of them in greyscale."""
    side = int(min(image.size) * rng.uniform(0.4, 1))
    left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
    cut = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE))
    return cut if rng.random() < 0.5 else ImageOps.grayscale(cut)


def write(image: Image.Image, rng: np.random.Generator, *, ink: int) -> Image.Image:
    """Write lines of random words over an image."""
    pen, letters = ImageDraw.Draw(image), list("abcdefghijklmno pqrst")
    for top in range(5, image.height, 16):
        pen.text((5, top), "".join(rng.choice(letters, image.width // 8)), fill=ink)
    return image


if __name__ == "__main__":
    main()
