"""``brainfeat info``: what a cache or a bundle holds, and whether it is whole."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from brainfeat.cli import options


@click.command("info", short_help="Tell what a file holds, and whether it is whole.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--verify",
    is_flag=True,
    help="Read all of it, and the shards beside it, and name everything that is wrong.",
)
@options.json_option
def command(file: Path, *, verify: bool, as_json: bool) -> None:
    """Tell what FILE, a feature cache or a fitted head, holds, and whether it is whole.

    Exit code 1 says that it is damaged, or no file of brainfeat's.
    """
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


def _verify(file: Path) -> list[str]:
    from brainfeat.verification import find_problems

    return find_problems(file)


def _show(document: dict[str, Any]) -> None:
    for name, value in document.items():
        if isinstance(value, dict):
            options.say(f"{name}:")
            for key, entry in value.items():
                options.say(f"  {key}: {entry}")
        else:
            options.say(f"{name}: {value}")


def _describe(file: Path) -> dict[str, Any]:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.errors import CacheFormatError
    from brainfeat.heads.bundle import HeadBundle

    try:
        with FeatureCache.open(file) as cache:
            return _describe_cache(cache)
    except CacheFormatError as error:
        if "not a brainfeat-features file" not in str(error):
            raise
    return _describe_bundle(HeadBundle.load(file))


def _describe_cache(cache: Any) -> dict[str, Any]:
    images = cache.mask()
    return {
        "file": str(cache.path),
        "kind": "feature cache",
        "whole": True,
        "rows": len(cache),
        "images": int((cache.view == 0).sum()),
        "classes": {
            name: int((cache.y[images] == label).sum())
            for label, name in enumerate(cache.class_names)
        },
        "splits": {
            split or "none": int((cache.splits[cache.view == 0] == split).sum())
            for split in ("train", "val", "test", "")
        },
        "rejected": [asdict(rejected) for rejected in cache.rejected],
        "augmentation": cache.augmentation,
        "fingerprint": cache.fingerprint,
        "spec": asdict(cache.spec),
        "created_at": cache.created_at,
        "provenance": cache.provenance,
    }


def _describe_bundle(bundle: Any) -> dict[str, Any]:
    training = bundle.training
    return {
        "kind": "fitted head",
        "whole": True,
        "head": bundle.head,
        "params": bundle.params,
        "classes": list(bundle.class_names),
        "temperature": bundle.temperature,
        "split": None if training.split is None else asdict(training.split),
        "val_accuracy": None if training.val is None else training.val.accuracy,
        "test_accuracy": None if training.test is None else training.test.accuracy,
        "fingerprint": bundle.spec.fingerprint,
        "spec": asdict(bundle.spec),
        "random_state": training.random_state,
        "versions": training.versions,
    }
