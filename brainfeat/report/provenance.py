"""What the results are based on, in sections: leakage, data, features, provenance and limits."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from brainfeat.cache.joined import JoinedCaches
from brainfeat.evaluation.units import IMAGE
from brainfeat.report.blocks import Block, Commands, Items, Section, Table
from brainfeat.report.commands import list_commands
from brainfeat.report.study import Study
from brainfeat.report.wording import SPEC_MEANINGS, SUBSET_NAMES, capitalise
from brainfeat.text import count, format_metric

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache

# What no split and no fold divides, by the record of the fit.
GROUPINGS = {
    "column": "groups of the table, such as patients",
    "copies": "copies, and groups of the table where it has any",
    "near-duplicates": "near duplicates and copies, and groups of the table where it has any",
    "exact-duplicates": "exact duplicates, and groups of the table where it has any",
    "none": "nothing",
}


def name_grouping(group_by: str | None) -> str:
    """Name what no split divides, for a sentence."""
    if group_by is not None and group_by.startswith("numbers:"):
        size = group_by.partition(":")[2]
        return (
            f"blocks of {size} numbers in file names, a guess at patients, copies, and groups of "
            "the table where it has any"
        )
    return GROUPINGS.get(str(group_by), "not recorded")


def make_leakage(study: Study) -> Section:
    """Show copies across splits, and what else gives the class away."""
    audit = study.audit
    exact, copies, near = audit.exact_duplicates, audit.copies, audit.near_duplicates
    numbers = (exact.groups, exact.files, exact.cross_split_groups, exact.test_files)
    rows = [("exact duplicates", *(f"{number:,}" for number in numbers))]
    if copies is not None:
        numbers = (copies.groups, copies.images, copies.cross_split_groups, copies.test_files)
        rows.append(("copies, in any orientation", *(f"{number:,}" for number in numbers)))
    if near is not None:
        numbers = (near.clusters, near.images, near.cross_split_clusters, near.test_files)
        title = f"near duplicates (similarity ≥ {near.threshold})"
        rows.append((title, *(f"{number:,}" for number in numbers)))
    rows.append(("groups of the table", "–", "–", f"{audit.groups_across_splits:,}", "–"))
    blocks: list[Block] = [
        "Copies of one image in several splits make metrics too good to be true.",
        Table(
            title=f"Copies among {count(audit.images, 'image')}",
            head=("kind", "sets of two or more", "images in them", "sets across splits",
                  "test images with a copy in train or val"),
            rows=rows,
        ),
    ]  # fmt: skip
    if audit.patient_key == "random":
        blocks.append(
            "Patient identifiers were hashed with a random key: a patient whose volumes were cut "
            "into slices in two runs counts as two."
        )
    if copies is None:
        blocks.append(
            "Mirrored and turned copies were not searched for: the features have no signatures, or "
            "there are too many images."
        )
    if near is None:
        blocks.append("Near duplicates were not searched for, because there are too many images.")
    conflicts = Counter(conflict.kind for conflict in audit.label_conflicts)
    blocks.append(
        "Copies of one image with different labels: "
        f"{count(conflicts['exact-duplicates'], 'set')} of exact duplicates, "
        f"{count(conflicts['copies'], 'pair')} of copies, "
        f"{count(conflicts['near-duplicates'], 'set')} of near duplicates."
    )
    blocks += _list_controls(study)
    blocks.append(
        Items(entries=[f"{capitalise(text)}." for text in audit.findings])
        if audit.findings
        else "The audit found nothing."
    )
    return Section(name="leakage", title="Leakage", blocks=blocks)


def _list_controls(study: Study) -> Iterator[Table]:
    rows = []
    if shortcut := study.audit.shortcut:
        rows.append(
            (
                f"shortcut: a random forest on {', '.join(shortcut.columns)}, without pixels",
                f"{format_metric(shortcut.accuracy)} ± {format_metric(shortcut.error)}",
                format_metric(shortcut.chance),
            )
        )
    if permutation := study.audit.permutation:
        rows.append(
            (
                "shuffled labels: the label of the nearest image",
                f"{format_metric(permutation.accuracy)} ± {format_metric(permutation.std)}",
                format_metric(permutation.chance),
            )
        )
    if rows:
        yield Table(
            title="Controls: accuracy that should be at chance",
            head=("control", "accuracy", "chance"),
            rows=rows,
            note="Above chance, a shortcut means that the kind of file gives the class away, and "
            "shuffled labels mean that copies do. After ±: the standard error over folds, and the "
            "standard deviation over shuffles.",
        )


def make_data(study: Study) -> Section:
    """Show how many images there are, in which split, and which were left out and why."""
    training = study.bundle.training
    origin = (
        "The head was fitted on images of the feature file that it is evaluated on."
        if study.is_same_cache
        else "The head was fitted on another feature file than the one it is evaluated on."
    )
    blocks: list[Block] = [
        origin,
        Table(
            title="Images from the table to the metrics",
            head=("step", "images"),
            rows=_list_flow(study),
        ),
        _list_exclusions(study.cache),
        _count_labelled(study.cache),
    ]
    if training.split is not None:
        grouped_by = name_grouping(training.group_by)
        blocks.append(
            Table(
                title="Splits that the fit used",
                head=("split", "images" if study.bundle.bag is None else "patients"),
                rows=[(name, f"{size:,}") for name, size in asdict(training.split).items()],
                note=f"Kept together in one split: {grouped_by}. Splits of the table are kept even "
                "where they divide these.",
            )
        )
    return Section(name="data", title="Data", blocks=blocks)


def _list_flow(study: Study) -> list[tuple[str, str]]:
    subsets, rejected = study.evaluation.subsets, len(study.cache.rejected)
    images, labelled = int(study.cache.is_image.sum()), int(study.cache.mask().sum())
    rows = [
        ("listed in the table", images + rejected),
        ("could not be read", rejected),
        ("without a label", images - labelled),
        (f"not in {study.split_name}", labelled - study.n_images),
        ("evaluated", study.n_images),
    ]
    patients = study.evaluation.unit != IMAGE
    if patients:
        rows.append(("patients of these", study.evaluation.n))
    # Each of these is within the one before it.
    for name in ("without_exact_duplicates", "without_copies", "without_near_duplicates"):
        subset = getattr(subsets, name)
        if subset.accuracy is not None:
            rows.append((f"{'patients ' if patients else ''}{SUBSET_NAMES[name]}", subset.n))
    return [(name, f"{number:,}") for name, number in rows]


def _count_labelled(cache: "FeatureCache") -> Table:
    labelled = cache.mask()
    found = set(cache.splits[labelled].tolist())
    names = [name for name in ("train", "val", "test", "") if name in found]
    rows = []
    for label, title in enumerate(cache.class_names):
        splits = cache.splits[labelled & (cache.y == label)]
        sizes = [int((splits == name).sum()) for name in names]
        rows.append((title, *(f"{size:,}" for size in (*sizes, len(splits)))))
    return Table(
        title="Labelled images of the feature file, by class and split of the table",
        head=("class", *(name or "no split" for name in names), "all"),
        rows=rows,
    )


def _list_exclusions(cache: "FeatureCache") -> Block:
    reasons = Counter(entry.reason for entry in cache.rejected)
    if not reasons:
        return "No image was excluded: every file of the table could be read."
    return Table(
        title="Images that were excluded, and why",
        head=("reason", "images"),
        rows=[(reason, f"{number:,}") for reason, number in reasons.most_common()],
        note="brainfeat info FEATURES lists their paths.",
    )


def _list_specs(cache: "FeatureCache") -> Iterator[Table]:
    """Yield what changes a feature; of joined caches, of each."""
    specs = {"What changes a feature": cache.spec}
    if isinstance(cache, JoinedCaches):
        specs = {
            f"What changes a feature of {name}": part.spec
            for name, part in zip(cache.names, cache.caches, strict=True)
        }
    for title, spec in specs.items():
        yield Table(
            title=title,
            head=("property", "value", "meaning"),
            rows=[
                (name, str(value), SPEC_MEANINGS.get(name, ""))
                for name, value in asdict(spec).items()
            ],
            numeric=False,
        )


def make_features(study: Study) -> Section:
    """Show what a feature is."""
    augmentation = study.cache.augmentation
    return Section(
        name="features",
        title="Features",
        blocks=[
            "A frozen convolutional base turns each image into features, the input of the head.",
            *_list_specs(study.cache),
            "Training images have no augmented views."
            if augmentation is None or study.cache.is_altered
            else "Training images have augmented views, which are never evaluated: "
            f"{', '.join(f'{name} {value}' for name, value in augmentation.items())}.",
        ],
    )


def make_provenance(study: Study) -> Section:
    """Show commands, digests, seeds and versions."""
    training, cache = study.bundle.training, study.cache
    digests = [
        ("feature file", cache.content_sha256),
        ("feature file of the fit", str(training.cache_sha256)),
        ("kind of features (fingerprint)", cache.fingerprint),
    ]
    seeds = [
        ("fit", str(training.random_state)),
        ("bootstrap of the intervals", str(study.evaluation.bootstrap.random_state)),
    ]
    extracting = _read_versions(cache.provenance)
    fitting = dict(training.versions or {})
    processor = cache.provenance.get("processor")
    named = processor.get("name") if isinstance(processor, dict) else None
    return Section(
        name="provenance",
        title="Provenance",
        blocks=[
            "Commands that lead to these results, with the main options that the files record:",
            Commands(lines=list_commands(study)),
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


def _read_versions(record: Mapping[str, Any]) -> dict[str, str]:
    versions = record.get("versions")
    found = versions.items() if isinstance(versions, dict) else ()
    return {str(name): str(version) for name, version in found}


def make_limits(study: Study) -> Section:
    """Show what the head is for, what it is not, and what these results do not cover."""
    names = ", ".join(study.bundle.class_names)
    what = "single slices" if study.bundle.bag is None else "all slices of patients"
    least = min(entry.support for entry in study.evaluation.per_class)
    grouped = bool(np.asarray(study.cache.groups[study.predictions.rows] != "").any())
    entries = [
        f"Intended for research and teaching: comparing methods on {what} of {names}.",
        (
            "Not a medical device. It has not been tested, certified or approved for any use on "
            "patients; do not use it to diagnose, to plan a treatment, or to reassure anyone."
        ),
        (
            "It cannot abstain: its file holds neither an out-of-distribution detector nor what "
            "prediction sets need, so it gives every image one of its classes."
            if study.bundle.ood_detector is None and study.bundle.conformal is None
            else "It can abstain, but not reliably: it may give an image of something else one of "
            "its classes with a high probability."
        ),
        (
            "It sees one slice at a time, and neither other sequences nor the history of the "
            "patient."
            if study.bundle.bag is None
            else "It sees the given images of a patient together, without their order, and not the "
            "history of the patient."
        ),
        f"The rarest class evaluated has {count(least, study.noun)}.",
        (
            "The table names groups, such as patients; the intervals keep images of one together."
            if grouped
            else "The table names no patients: slices of one patient may be in several splits, "
            "which near duplicates show only in part."
        ),
        (
            "The results hold for images like these. On images of another hospital, scanner or "
            "mix of classes they will differ, and are likely to be worse."
            if study.is_same_cache
            else "The results are on another feature file than that of the fit; whether its "
            "images come from elsewhere, the files do not record."
        ),
        (
            "Age, sex, ethnicity and scanner are not recorded, so fairness between groups of "
            "patients cannot be assessed."
        ),
    ]
    return Section(name="limits", title="Intended use and limits", blocks=[Items(entries=entries)])
