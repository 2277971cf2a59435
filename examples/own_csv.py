"""Write a CSV with patients and splits, so that no patient is in two splits.

Synthetic slices stand in for your images.
"""

import argparse
import csv
import tempfile
from pathlib import Path

from PIL import Image

from brainfeat import FeatureCache, extract, fit_head, read_table
from brainfeat.leakage.splitting import split_rows
from brainfeat.phantoms import CLASS_NAMES, draw_slice


def main(arguments: list[str] | None = None) -> None:
    """Write a CSV with groups and splits, and fit a head that respects both."""
    parser = argparse.ArgumentParser(description="Use a CSV with groups and splits.")
    parser.add_argument("--backbone", default="vgg16", help="convolutional base")
    parser.add_argument("--weights", default="random", help="imagenet, random or a file")
    parser.add_argument("--size", type=int, default=224, help="pixels of the slices")
    parser.add_argument("--patients", type=int, default=8, help="synthetic patients of a class")
    chosen = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        rows = draw(Path(folder), chosen.patients, chosen.size)
        features = extract(
            read_table(write_csv(Path(folder) / "table.csv", rows)),
            Path(folder) / "features.h5",
            backbone=chosen.backbone,
            weights=chosen.weights,
            input_size=chosen.size,
        ).output
        show_splits(features)
        training = fit_head(features, head="logistic", cv=3, group_by="column").training
    print(f"accuracy on the test patients: {training.test.accuracy:.3f}")
    accuracy = training.cv.accuracy
    print(f"over 3 folds of whole patients: {accuracy.mean:.3f} ± {accuracy.std:.3f}")


def draw(folder: Path, patients: int, size: int) -> list[dict[str, str]]:
    """Draw three slices per patient and return the metadata of each."""
    rows = []
    for label in CLASS_NAMES:
        for patient in range(patients):
            group = f"{label}-{patient}"
            for level in (4, 8, 12):
                path = f"{group}-{level}.png"
                pixels = draw_slice(label, patient=patient, level=level, size=size)
                Image.fromarray(pixels).save(folder / path)
                rows.append({"path": path, "label": label, "group": group})
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Assign one split to every patient and write the table."""
    labels = [CLASS_NAMES.index(row["label"]) for row in rows]
    groups = [row["group"] for row in rows]
    splits = split_rows(labels, fractions={"val": 0.2, "test": 0.2}, groups=groups)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "label", "split", "group"])
        writer.writeheader()
        writer.writerows({**row, "split": split} for row, split in zip(rows, splits, strict=True))
    return path


def show_splits(features: Path) -> None:
    """Count the images and the patients of each split."""
    with FeatureCache.open(features) as cache:
        for split in ("train", "val", "test"):
            groups = cache.groups[cache.mask(split)]
            print(f"{split:<6}{len(groups):>4} images of {len(set(groups)):>3} patients")
        pairs = {(group, split) for group, split in zip(cache.groups, cache.splits, strict=True)}
        print(f"patients in two splits: {len(pairs) - len(set(cache.groups))}")


if __name__ == "__main__":
    main()
