"""From a folder of DICOM or NIfTI volumes to a report that names no patient.

    python examples/dicom_report.py hospital --output study --key site.key

The folders directly below `hospital` are the classes; each holds volumes of patients.
"""

import argparse
from pathlib import Path

from brainfeat import SlicePolicy, evaluate, extract, fit_head, read_table, write_slices
from brainfeat.cache.cache import FeatureCache
from brainfeat.leakage.auditing import audit
from brainfeat.report import to_html
from brainfeat.tables.pseudonyms import read_patient_key


def main(arguments: list[str] | None = None) -> None:
    """Cut slices, extract features, fit a head, evaluate it and write a report."""
    parser = argparse.ArgumentParser(description="Write a report on volumes in class folders.")
    parser.add_argument("volumes")
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    parser.add_argument("--key", help="file with the secret key for hashing patients")
    parser.add_argument("--slices", default="middle", help="all, middle, every:K or largest")
    parser.add_argument("--window", default="auto", help="auto, robust or CENTRE,WIDTH")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--head", default="logistic")
    chosen = parser.parse_args(arguments)

    chosen.output.mkdir()
    cut = write_slices(
        [chosen.volumes],
        chosen.output / "slices",
        policy=SlicePolicy(slices=chosen.slices, window=chosen.window),
        patient_key=read_patient_key(chosen.key) if chosen.key else None,
        class_folders=True,
    )
    print(f"{cut.slices} slices of {cut.patients} patients; {len(cut.refused)} refused")
    features = extract(
        read_table(cut.output),
        chosen.output / "features.h5",
        backbone=chosen.backbone,
        weights=chosen.weights,
        input_size=chosen.size,
    ).output
    bundle = fit_head(features, head=chosen.head)
    bundle.save(chosen.output / "head.h5")
    evaluation = evaluate(bundle, features)
    with FeatureCache.open(features) as cache:
        page = to_html(
            evaluation,
            bundle=bundle,
            cache=cache,
            audit=audit(cache),
            command="python examples/dicom_report.py",
        )
    report = chosen.output / "report.html"
    report.write_text(page, encoding="utf-8")
    print(f"accuracy {evaluation.accuracy:.3f} on {evaluation.n} slices of new patients")
    print(f"{report} written")


if __name__ == "__main__":
    main()
