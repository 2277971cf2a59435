"""Where figures come from, in sections: leakage, data, features, provenance, and their limits."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from brainfeat.report.blocks import Block, Commands, Items, Section, Table, count, show_number
from brainfeat.report.results import Study

_MEANINGS = {
    "backbone": "convolutional base",
    "layer": "layer whose output is pooled",
    "n_features": "numbers an image",
    "weights_sha256": "SHA-256 of the weights",
    "pooling": "how the map of the layer becomes numbers",
    "input_size": "height and width in pixels of what the base sees",
    "resize": "how an image is brought to that size",
    "fit": "what becomes of its aspect ratio",
    "colour": "colours",
    "orientation": "which way up",
    "scaling": "what the base is fed: values as its weights were trained with, or 0 to 1",
    "precision": "what is computed in",
    "dtype": "what is stored",
}
GROUPINGS = {
    "column": "groups of the table, such as patients",
    "near-duplicates": "clusters of near duplicates",
    "exact-duplicates": "exact duplicates",
    "none": "nothing",
}


def make_leakage(study: Study) -> Section:
    """Give what is on two sides of the split, and what else gives the answer away."""
    audit = study.audit
    exact, near = audit.exact_duplicates, audit.near_duplicates
    numbers = (exact.groups, exact.files, exact.cross_split_groups, exact.test_files)
    rows = [("identical files", *(f"{number:,}" for number in numbers))]
    if near is not None:
        numbers = (near.clusters, near.images, near.cross_split_clusters, near.test_files)
        title = f"near duplicates (similarity ≥ {near.threshold})"
        rows.append((title, *(f"{number:,}" for number in numbers)))
    rows.append(("groups of the table", "–", "–", f"{audit.groups_across_splits:,}", "–"))
    blocks: list[Block] = [
        "Copies on two sides of the split make figures too good to be true.",
        Table(
            title=f"Copies among {count(audit.images, 'image')}",
            head=("kind", "sets of two or more", "images in them", "sets across splits",
                  "test images with a copy in train or val"),
            rows=rows,
        ),
    ]  # fmt: skip
    if audit.patient_key == "random":
        blocks.append(
            "Patients were hashed with a random key: one whose volumes were cut in two runs counts "
            "as two."
        )
    if near is None:
        blocks.append("Near duplicates were not looked for among so many images.")
    conflicts = Counter(conflict.kind for conflict in audit.label_conflicts)
    blocks.append(
        f"Images that show the same and have different labels: "
        f"{count(conflicts['exact-duplicates'], 'set')} of identical files, "
        f"{count(conflicts['near-duplicates'], 'set')} of near duplicates."
    )
    blocks += _list_controls(study)
    blocks.append(
        Items(entries=[f"{text[0].upper()}{text[1:]}." for text in audit.findings])
        if audit.findings
        else "The audit found nothing."
    )
    return Section(name="leakage", title="Leakage", blocks=blocks)


def _list_controls(study: Study) -> Iterator[Table]:
    rows = []
    if shortcut := study.audit.shortcut:
        rows.append(
            (
                f"without pixels: a random forest on {', '.join(shortcut.columns)}",
                f"{shortcut.accuracy:.3f} ± {shortcut.error:.3f}",
                f"{shortcut.chance:.3f}",
            )
        )
    if permutation := study.audit.permutation:
        rows.append(
            (
                "shuffled labels: the nearest image's label, where labels mean nothing",
                f"{permutation.accuracy:.3f} ± {permutation.std:.3f}",
                f"{permutation.chance:.3f}",
            )
        )
    if rows:
        yield Table(
            title="Controls: accuracy where there should be none",
            head=("control", "accuracy", "chance"),
            rows=rows,
            note="Above chance, the first says that the kind of file gives the class away, the "
            "second that copies do. After ±: the standard error of five folds, and the standard "
            "deviation over shuffles.",
        )


def make_data(study: Study) -> Section:
    """Give the images: how many, in which part, and which were left out and why."""
    cache = study.cache
    images = cache.view == 0
    labelled = cache.mask()
    names = [*(name for name in ("train", "val", "test") if (cache.splits[labelled] == name).any())]
    without = int((cache.splits[labelled] == "").sum())
    rows = []
    for label, name in enumerate(cache.class_names):
        chosen = labelled & (cache.y == label)
        cells = [int((cache.splits[chosen] == split).sum()) for split in names]
        if without:
            cells.append(int((cache.splits[chosen] == "").sum()))
        rows.append((name, *(f"{cell:,}" for cell in (*cells, int(chosen.sum())))))
    parts = [name for name in ("train", "val", "test") if name in study.training("split")]
    origin = (
        "The head was fitted on images of the same feature file that it is measured on."
        if study.is_same_cache
        else "The head was fitted on another feature file than the one that it is measured on."
    )
    blocks: list[Block] = [
        origin,
        Table(
            title="Images from the table to the figures",
            head=("step", "images"),
            rows=_list_flow(study, int(images.sum()), int(labelled.sum())),
        ),
        _list_exclusions(study),
        Table(
            title="Labelled images of the feature file, by class and split of the table",
            head=("class", *names, *(["no split"] if without else []), "all"),
            rows=rows,
        ),
    ]
    if parts:
        grouped_by = GROUPINGS.get(str(study.bundle.training.get("group_by")), "not recorded")
        blocks.append(
            Table(
                title="Parts that the fit used",
                head=("part", "images"),
                rows=[(part, show_number(study.training("split")[part])) for part in parts],
                note=f"What no part cuts: {grouped_by}. A split that the table makes is kept, also "
                "where it does.",
            )
        )
    return Section(name="data", title="Data", blocks=blocks)


def _list_flow(study: Study, images: int, labelled: int) -> list[tuple[str, str]]:
    subsets, rejected = study.evaluation.subsets, len(study.cache.rejected)
    rows = [
        ("listed in the table", images + rejected),
        ("could not be read", rejected),
        ("without a label", images - labelled),
        (f"not in {study.split_name}", labelled - study.evaluation.n),
        ("measured", study.evaluation.n),
        ("without identical files", subsets.without_exact_duplicates.n),
    ]
    if subsets.without_near_duplicates.accuracy is not None:
        rows.append(("without near duplicates", subsets.without_near_duplicates.n))
    return [(name, f"{number:,}") for name, number in rows]


def _list_exclusions(study: Study) -> Block:
    reasons = Counter(entry.reason for entry in study.cache.rejected)
    if not reasons:
        return "No image was excluded: every file of the table could be read."
    return Table(
        title="Images that were excluded, and why",
        head=("reason", "images"),
        rows=[(reason, f"{number:,}") for reason, number in reasons.most_common()],
        note="brainfeat info FEATURES lists their paths.",
    )


def make_features(study: Study) -> Section:
    """Give what a feature is."""
    augmentation = study.cache.augmentation
    return Section(
        name="features",
        title="Features",
        blocks=[
            "A frozen convolutional base turns each image into the numbers that the head sees.",
            Table(
                title="What changes a feature",
                head=("property", "value", "meaning"),
                rows=[
                    (name, str(value), _MEANINGS.get(name, ""))
                    for name, value in asdict(study.cache.spec).items()
                ],
                numeric=False,
            ),
            "Training images have no augmented views."
            if augmentation is None
            else "Training images have augmented views, which are never measured: "
            f"{', '.join(f'{name} {value}' for name, value in augmentation.items())}.",
        ],
    )


def make_provenance(study: Study) -> Section:
    """Give digests, seeds, versions and commands."""
    training, cache = study.bundle.training, study.cache
    digests = [
        ("feature file", cache.content_sha256),
        ("feature file of the fit", str(training.get("cache_sha256"))),
        ("kind of features (fingerprint)", cache.fingerprint),
    ]
    seeds = [
        ("fit", str(training.get("random_state"))),
        ("bootstrap of the intervals", str(study.evaluation.bootstrap.random_state)),
    ]
    extracting = _read_versions(cache.provenance)
    fitting = _read_versions(training)
    processor = cache.provenance.get("processor")
    named = processor.get("name") if isinstance(processor, dict) else None
    return Section(
        name="provenance",
        title="Provenance",
        blocks=[
            "Commands that lead to these figures, with the options that the files record:",
            Commands(lines=_list_commands(study)),
            Table(
                title="Digests (SHA-256)", head=("of", "digest"), rows=digests, numeric=False
            ),
            Table(title="Seeds", head=("of", "random state"), rows=seeds),
            Table(
                title="Versions",
                head=("library", "features", "head"),
                rows=[
                    (name, extracting.get(name, "–"), fitting.get(name, "–"))
                    for name in dict.fromkeys([*extracting, *fitting])
                ],
                note=f"The feature file was written {cache.created_at}"
                + (f" on {named}." if named else "."),
            ),
        ],
    )  # fmt: skip


def _read_versions(record: Any) -> dict[str, str]:
    versions = record.get("versions")
    found = versions.items() if isinstance(versions, dict) else ()
    return {str(name): str(version) for name, version in found}


def _list_commands(study: Study) -> list[str]:
    spec, bundle = study.cache.spec, study.bundle
    extract = [
        *("extract", "DATA", "-o", "features.h5", "--backbone", spec.backbone),
        *("--size", str(spec.input_size), "--scaling", spec.scaling),
        *("--precision", spec.precision),
    ]
    fit = [
        *("fit-head", "features.h5", "-o", "head.h5", "--head", bundle.head),
        *("--random-state", str(bundle.training.get("random_state"))),
    ]
    for name, value in sorted(bundle.params.items()):
        fit += ["--param", f"{name}={value}"]
    lines = [shlex.join(["brainfeat", *words]) for words in (extract, fit)]
    return [*lines, study.command] if study.command else lines


def make_limits(study: Study) -> Section:
    """Give what the head is for, what it is not, and what these figures cannot say."""
    names = ", ".join(study.bundle.class_names)
    least = min(entry.support for entry in study.evaluation.per_class)
    grouped = bool(np.asarray(study.cache.groups[study.predictions.rows] != "").any())
    entries = [
        f"Intended for research and teaching: comparing methods on single slices of {names}.",
        (
            "Not a medical device. It has not been tested, certified or approved for any use on "
            "patients; do not use it to diagnose, to plan a treatment, or to reassure anyone."
        ),
        (
            "It cannot say 'none of these': whatever it is shown, its probabilities sum to 1 "
            "over its classes."
        ),
        "It sees one slice at a time, and nothing of the patient's history or other sequences.",
        f"The rarest class measured has {count(least, 'image')}.",
        "The table names groups, such as patients; the intervals keep images of one together."
        if grouped
        else "The table names no patients: slices of one patient may be on both sides of the "
        "split, which near duplicates show only in part.",
        "The figures hold for images like these. On images of another hospital, scanner or mix of "
        "classes they will differ, and are likely to be lower."
        if study.is_same_cache
        else "The figures are of another feature file than that of the fit; whether its images "
        "come from elsewhere, the files do not say.",
        (
            "Age, sex, ethnicity and scanner are not recorded, so that fairness between groups of "
            "patients cannot be judged."
        ),
    ]
    return Section(name="limits", title="Intended use and limits", blocks=[Items(entries=entries)])
