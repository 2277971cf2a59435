"""Write rotated and inverted copies of training slices as out-of-distribution examples.

    python examples/make_ood_examples.py brain-mri -o odd
    brainfeat extract odd -o odd.h5
    brainfeat fit-head mri.h5 -o head.h5 --ood-examples odd.h5

If the table has splits, only its training split is copied.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from brainfeat import read_table

ROTATIONS = {"90": 90, "180": 180, "270": 270}


def main(arguments: list[str] | None = None) -> None:
    """Write four copies of each of some slices into one folder."""
    parser = argparse.ArgumentParser(description="Write rotated and inverted copies of slices.")
    parser.add_argument("images", help="folder or CSV; its training split if it has splits")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to create")
    parser.add_argument("--number", type=int, default=500, help="slices to copy")
    chosen = parser.parse_args(arguments)

    table = read_table(chosen.images)
    rows = [row for row, split in enumerate(table.splits) if split in ("train", "")]
    chosen.output.mkdir()
    for row in np.random.default_rng(0).permutation(rows)[: chosen.number]:
        with Image.open(table.absolute_path(row)) as file:
            image = file.convert("L")
        copies = {name: image.rotate(angle, expand=True) for name, angle in ROTATIONS.items()}
        for name, copy in {**copies, "inverted": ImageOps.invert(image)}.items():
            copy.save(chosen.output / f"{row}-{name}.png")
    print(f"{len(list(chosen.output.iterdir()))} images in {chosen.output}")


if __name__ == "__main__":
    main()
