"""Volumes straight into a cache, beside the same slices as PNG files: images per second.

    python examples/benchmark_volumes.py
    python examples/benchmark_volumes.py --volumes 20 --backbone mobilenet-0.75

Synthetic NIfTI volumes of 16 bits are cut into PNG files once, which is not counted. Then both are
extracted in turns, by random weights, to caches that do not exist yet. The base is loaded before.
"""

import argparse
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np

from brainfeat import extract, read_table, read_volumes, write_slices
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.backbones import load_backbone
from brainfeat.phantoms.drawing import draw_slice

KEY = b"a key of this benchmark"


def main(arguments: list[str] | None = None) -> None:
    """Print the rates of each round and the median of their ratios."""
    parser = argparse.ArgumentParser(description="Measure extraction straight from volumes.")
    parser.add_argument("--backbone", choices=BACKBONES, default="vgg16")
    parser.add_argument("--size", type=int, default=224, help="height and width of the input")
    parser.add_argument("--volumes", type=int, default=2)
    parser.add_argument("--shape", type=int, nargs=2, default=[155, 240], help="slices and side")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        measure(Path(folder), chosen)


def measure(folder: Path, chosen: argparse.Namespace) -> None:
    """Write the volumes and slices, and extract both in turns."""
    depth, side = chosen.shape
    for number in range(chosen.volumes):
        write_volume(folder / "in" / f"{number}.nii.gz", number, depth, side)
    write_slices(folder / "in", folder / "slices", patient_key=KEY)
    base = load_backbone(
        chosen.backbone, weights="random", input_size=chosen.size, precision="float32"
    )
    tables = {
        "PNG": read_table(folder / "slices"),
        "volumes": read_volumes(folder / "in", patient_key=KEY),
    }
    extract(tables["PNG"], folder / "first.h5", backbone=base)
    ratios = []
    print("round  PNG, images/s  volumes, images/s  ratio")
    for turn in range(chosen.rounds):
        rates = {}
        for name in sorted(tables, reverse=turn % 2 == 1):
            output = folder / f"{turn}-{name}.h5"
            rates[name] = extract(tables[name], output, backbone=base).images_per_second
        ratios.append(rates["volumes"] / rates["PNG"])
        print(f"{turn + 1:>5}{rates['PNG']:>15.1f}{rates['volumes']:>19.1f}{ratios[-1]:>7.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


def write_volume(path: Path, patient: int, depth: int, side: int) -> None:
    """Write slices of one patient, a few of which repeat with other noise."""
    path.parent.mkdir(exist_ok=True)
    drawn = [draw_slice("glioma", patient=patient, level=level, size=side) for level in range(5)]
    rng = np.random.default_rng(patient)
    values = np.stack([drawn[place * len(drawn) // depth] for place in range(depth)], axis=2)
    noise = rng.normal(0, 8, values.shape) * (values > 20)
    voxels = (values * 4.0 + noise).clip(0).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


if __name__ == "__main__":
    main()
