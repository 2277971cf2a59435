"""The caches that were joined for a head, and what each was worth, in tables."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from brainfeat.report.blocks import Cell, Estimate, Table, estimate
from brainfeat.report.wording import METRIC_NAMES, NO_VALUE
from brainfeat.text import count, format_interval, format_metric

if TYPE_CHECKING:
    from brainfeat.heads.joins import BlockAblation, BlockVariant, JoinRecord
    from brainfeat.heads.record import FitRecord


def list_joins(training: "FitRecord") -> Iterator[Table]:
    """Yield a table of the joined caches, and one of what each was worth, if there are any."""
    if training.join is None:
        return
    yield _list_blocks(training.join)
    if training.join.ablation is not None:
        yield _list_variants(training.join.ablation, of_images=training.join.on == "image")


def _list_blocks(found: "JoinRecord") -> Table:
    if found.on == "image":
        return Table(
            title="Joined features of the same images",
            head=("name", "features"),
            rows=[(block.name, f"{block.n_features:,}") for block in found.blocks],
            note=f"{count(sum(block.n_features for block in found.blocks), 'feature')} of "
            f"{count(found.blocks[0].images, 'image')}, side by side.",
        )
    notes = [
        f"{count(found.groups, 'group')}, of which {found.complete:,} have all.",
        "Where one is missing, its features have their mean over the groups of the fit.",
    ]
    if marked := [block.name for block in found.blocks if block.is_marked]:
        notes.append(f"A column tells where {' or '.join(marked)} is missing.")
    if unlabelled := sum(block.unlabelled for block in found.blocks):
        notes.append(f"Left out: {count(unlabelled, 'image')} without a class.")
    return Table(
        title="Joined features, by groups that have them",
        head=("name", "features", "images", "train", "val", "test", "missing"),
        rows=[
            (
                block.name,
                f"{block.n_features:,}",
                f"{block.images:,}",
                f"{block.train:,}",
                f"{block.val:,}",
                f"{block.test:,}",
                f"{block.missing:,}",
            )
            for block in found.blocks
        ],
        note=" ".join(notes),
    )


def _list_variants(found: "BlockAblation", *, of_images: bool) -> Table:
    noun = "image" if of_images else "group"
    folds = f"the same {found.n_folds} folds of {count(found.n, noun)} of train and val"
    notes = [f"Out-of-fold predictions in {folds}, with 95 % intervals; differences are paired."]
    if not of_images:
        notes.append("Groups without any of the features are predicted from means.")
    if found.reason is not None:
        notes.append(f"A difference has no interval: {found.reason}.")
    return Table(
        title="What each of the joined features is worth",
        head=(
            "features",
            *(() if of_images else ("without them",)),
            *(METRIC_NAMES["balanced_accuracy"], "difference to all"),
        ),
        rows=[
            (
                _name(variant),
                *(() if of_images else (f"{variant.missing:,}",)),
                estimate(variant.balanced_accuracy, variant.interval),
                _show_difference(variant),
            )
            for variant in found.variants
        ],
        note=" ".join(notes),
    )


def _name(variant: "BlockVariant") -> str:
    if variant.block is None:
        return "all"
    return f"{variant.block} alone" if variant.part == "alone" else f"all but {variant.block}"


def _show_difference(variant: "BlockVariant") -> Cell:
    if variant.difference is None:
        return NO_VALUE
    interval = variant.difference_interval
    return Estimate(
        value=format_metric(variant.difference, signed=True),
        interval="" if interval is None else format_interval(interval, signed=True),
    )
