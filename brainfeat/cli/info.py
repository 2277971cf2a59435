"""``brainfeat info``: the content of a cache or a head file, and whether it is intact."""

import sys
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cli import options, protocol
from brainfeat.cli.wording import translate
from brainfeat.heads.kinds import parse_ensemble

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle

EXAMPLES = """\b
Examples:
  brainfeat info mri.h5
  brainfeat info head.h5 --verify
"""


@click.command(
    "info", short_help="Describe a cache or a head file, and verify it.", epilog=EXAMPLES
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--verify",
    is_flag=True,
    help="Read every byte, also of the shards beside a cache, and list everything that is wrong.",
)
@options.json_option
def command(file: Path, *, verify: bool, as_json: bool) -> None:
    """Describe FILE, a feature cache or a fitted head, and check that it is intact.

    The exit code is 1 where the file is damaged, or where brainfeat did not write it.
    """
    _refuse_volume(file)
    problems = _verify(file) if verify else []
    document = (
        {"file": str(file), "whole": False, "problems": problems} if problems else _describe(file)
    )
    if as_json:
        options.print_json(document)
    elif problems:
        for problem in problems:
            options.say(problem)
    else:
        _show(document)
    if problems:
        sys.exit(1)


def _refuse_volume(file: Path) -> None:
    from brainfeat.errors import BrainfeatError
    from brainfeat.files import is_so
    from brainfeat.readers.series import detect_format
    from brainfeat.tables.folders import CUT_VOLUMES

    if is_so(file.is_file) and (kind := detect_format(file)):
        raise BrainfeatError(f"{file} is a volume ({kind}); {CUT_VOLUMES}")


def _verify(file: Path) -> list[str]:
    from brainfeat.verification import find_problems

    return [translate(problem) for problem in find_problems(file)]


def _show(document: dict[str, Any], indent: str = "") -> None:
    for name, value in document.items():
        if isinstance(value, dict):
            options.say(f"{indent}{name}:")
            _show(value, f"{indent}  ")
        else:
            options.say(f"{indent}{name}: {value}")


def _describe(file: Path) -> dict[str, Any]:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.cache.formats import read_format
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.heads.bundle_schema import BUNDLE_SCHEMA

    if read_format(file) == BUNDLE_SCHEMA.format:
        return _describe_bundle(HeadBundle.load(file))
    with FeatureCache.open(file) as cache:
        return _describe_cache(cache)


def _describe_cache(cache: "FeatureCache") -> dict[str, Any]:
    images = cache.mask()
    return {
        "file": str(cache.path),
        "kind": "feature cache",
        "whole": True,
        "rows": len(cache),
        "images": int(cache.is_image.sum()),
        "classes": {
            name: int((cache.y[images] == label).sum())
            for label, name in enumerate(cache.class_names)
        },
        "splits": {
            split or "none": int((cache.splits[cache.is_image] == split).sum())
            for split in ("train", "val", "test", "")
        },
        "groups": len(set(cache.groups[cache.is_image].tolist()) - {""}),
        "generated": int((cache.is_generated & (cache.view == 0)).sum()),
        "rejected": [asdict(rejected) for rejected in cache.rejected],
        "augmentation": cache.augmentation,
        "signatures": cache.signature is not None,
        "layers": {name: _describe_layer(cache, name) for name in cache.layers},
        "maps": _describe_maps(cache),
        "fingerprint": cache.stored_spec.fingerprint,
        "spec": asdict(cache.stored_spec),
        "created_at": cache.created_at,
        "provenance": cache.provenance,
    }


def _describe_layer(cache: "FeatureCache", name: str) -> dict[str, Any]:
    selected = cache.select(name)
    return {"n_features": selected.spec.n_features, "fingerprint": selected.fingerprint}


def _describe_maps(cache: "FeatureCache") -> dict[str, Any] | None:
    if cache.stored_spec.pooling != "none":
        return None
    shape = cache.maps.shape[1:]
    return {
        "layer": cache.stored_spec.layer,
        "shape": list(shape),
        "bytes_per_image": prod(shape) * cache.maps.dtype.itemsize,
    }


def _describe_bundle(bundle: "HeadBundle") -> dict[str, Any]:
    from brainfeat.report.wording import describe_passes

    record, fitted = bundle.training, bundle.fitted_images
    new = record.test_without_copies
    return {
        "kind": "fitted head",
        "whole": True,
        "head": bundle.head,
        "params": bundle.params,
        "ensemble": _describe_ensemble(bundle),
        "classes": list(bundle.class_names),
        "bag": protocol.describe_bags(bundle),
        "temperature": bundle.temperature,
        "split": None if record.split is None else asdict(record.split),
        "generated": None if record.generated is None else asdict(record.generated),
        "val_accuracy": None if record.val is None else record.val.accuracy,
        "test_accuracy_without_copies": None if new is None else new.accuracy,
        "test_accuracy": None if record.test is None else record.test.accuracy,
        "fitted_images": None if fitted is None else len(fitted.seen),
        "signatures": fitted is not None and fitted.signature is not None,
        "fingerprint": bundle.spec.fingerprint,
        "spec": asdict(bundle.spec),
        "blocks": _describe_blocks(bundle),
        "generation": None if record.generation is None else asdict(record.generation),
        "passes": describe_passes(bundle),
        "random_state": record.random_state,
        "versions": None if record.versions is None else dict(record.versions),
    }


def _describe_ensemble(bundle: "HeadBundle") -> dict[str, Any] | None:
    """Describe the members of an ensemble, and how many fits it took; None for another head."""
    ensemble = parse_ensemble(bundle.head)
    if ensemble is None:
        return None
    members = bundle.estimator.members_
    return {
        "how": ensemble.how,
        "members": [member.name for member in members],
        "temperatures": [member.temperature for member in members],
        "n_folds": bundle.estimator.n_folds_,
        "fits": bundle.training.member_fits,
    }


def _describe_blocks(bundle: "HeadBundle") -> dict[str, Any] | None:
    """Describe the caches that were joined for a head; None for a head of one cache."""
    if bundle.blocks is None:
        return None
    join = bundle.training.join
    counts = {} if join is None else {block.name: block for block in join.blocks}
    found = {}
    for name, spec in zip(bundle.blocks.names, bundle.blocks.specs, strict=True):
        known = asdict(counts[name]) if name in counts else {}
        found[name] = {
            **{key: known.get(key) for key in ("images", "train", "val", "test", "missing")},
            "fingerprint": spec.fingerprint,
            "spec": asdict(spec),
        }
    return found
