"""The file of a head: its datasets and attributes, from a bundle and back to its parts."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.digests import Attribute
from brainfeat.cache.formats import has_format
from brainfeat.cache.groups import find_decisive_class
from brainfeat.cache.schema import read_json
from brainfeat.cache.signature import SIGNATURE_VERSION
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import StoredFile
from brainfeat.cache.writing import write_file
from brainfeat.canonical import canonical_json, read_record
from brainfeat.errors import BundleError
from brainfeat.files import check_output
from brainfeat.heads.bags import ATTENTION, BagRule, Bags, Features
from brainfeat.heads.blocks import BLOCK_ARRAYS, Blocks
from brainfeat.heads.bundle_schema import (
    BUNDLE_SCHEMA,
    check_signature_version,
    select_schema,
    take,
    take_all,
    with_prefix,
)
from brainfeat.heads.conformal import CONFORMAL_ARRAYS, Conformal
from brainfeat.heads.ensemble_archive import from_arrays, to_arrays
from brainfeat.heads.fitted_images import FittedImages
from brainfeat.heads.kinds import ATTENTION_HEADS, HEAD_NAMES, parse_ensemble, takes_maps
from brainfeat.heads.maps import MapRows
from brainfeat.heads.ood import OOD_ARRAYS, OODDetector
from brainfeat.heads.record import FitRecord

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle

_PROBE = ("probe/X", "probe/probabilities")


def check_target(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> Path:
    """Refuse a file that a head must not be written to, before anything is fitted.

    Raises
    ------
    BundleError
        As in :func:`brainfeat.files.check_output`.
    """
    return check_output(
        path,
        overwrite=overwrite,
        kind="a head that brainfeat wrote",
        recognise=lambda found: has_format(found, BUNDLE_SCHEMA.format),
        inputs=inputs,
        error=BundleError,
    )


def write_bundle(bundle: "HeadBundle", path: Path) -> Path:
    """Write a bundle to one file, atomically.

    Parameters
    ----------
    bundle : HeadBundle
    path : Path
        The file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    BundleError
        The file cannot be written, or the head has a type or a parameter that a reader would
        refuse.
    """
    try:
        head = canonical_json({"name": bundle.head, "params": bundle.params})
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"the parameters {bundle.params} cannot be stored as JSON ({error}); "
            "pass plain numbers, texts, lists or dictionaries"
        ) from error
    schema = select_schema(
        fitted=bundle.fitted_images is not None,
        bag=bundle.bag is not None,
        blocks=bundle.blocks is not None,
        attention=bundle.head in ATTENTION_HEADS,
        members=parse_ensemble(bundle.head) is not None,
    )
    optional: dict[str, Attribute] = {
        "signature_version": SIGNATURE_VERSION,
        "bag": canonical_json({} if bundle.bag is None else asdict(bundle.bag)),
        "blocks": canonical_json([] if bundle.blocks is None else bundle.blocks.to_document()),
    }
    return write_file(
        path,
        schema,
        datasets={
            **to_arrays(bundle.head, bundle.estimator),
            **with_prefix("blocks", bundle.blocks),
            **with_prefix("scope", bundle.ood_detector),
            **with_prefix("conformal", bundle.conformal),
            **with_prefix("fitted", bundle.fitted_images),
            **_list_probe(bundle.probe),
            "probe/probabilities": bundle.predict_proba(bundle.probe),
        },
        attributes={
            "spec": bundle.spec.to_json(),
            "class_names": json.dumps(bundle.class_names),
            "head": head,
            "temperature": float(bundle.temperature),
            "training": canonical_json(bundle.training.to_dict()),
            **{name: value for name, value in optional.items() if name in schema.attributes},
        },
    )


def read_fields(file: StoredFile) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Read the parts of a bundle, each of which is checked.

    Parameters
    ----------
    file : StoredFile
        A file that :func:`write_bundle` wrote.

    Returns
    -------
    tuple of (dict, ndarray of shape (m, k))
        The fields of a bundle, and the probabilities that are stored for its probe.

    Raises
    ------
    BrainfeatError
        A part is missing, or not what the format requires.
    """
    stored = file.attributes
    spec = FeatureSpec.from_json(str(stored["spec"]))
    names, head = _read_names(stored), read_json(stored, "head", dict)
    bag = _read_bag(stored, names)
    _check_head(head, bag)
    temperature = stored["temperature"]
    if not isinstance(temperature, float) or not 0 < temperature < np.inf:
        raise BundleError(f"temperature must be a positive number, got {temperature!r}")
    arrays = {name: np.asarray(array) for name, array in file.arrays.items()}
    blocks = _read_blocks(stored, arrays, spec)
    of_groups = blocks is not None and blocks.on == "group"
    if of_groups and bag is None:
        raise BundleError("blocks hold a vector of each group, and no bag says how it is made")
    _check_maps(head["name"], spec, bag=bag)
    probe, expected = _take_probe(arrays, None if of_groups else bag, maps=takes_maps(head["name"]))
    n_features = spec.n_features if blocks is None else blocks.n_filled
    size: dict[str, Any] = {"n_features": n_features, "n_classes": len(names)}
    n_blocks = None if blocks is None else len(blocks.names)
    scope = take_all(arrays, "scope", OOD_ARRAYS)
    conformal = take_all(arrays, "conformal", CONFORMAL_ARRAYS)
    fitted = take(arrays, "fitted")
    if "signature_version" in stored:
        check_signature_version(stored["signature_version"])
    fields = {
        "spec": spec,
        "class_names": names,
        "head": head["name"],
        "params": head["params"],
        "estimator": from_arrays(
            arrays, **head, temperature=temperature, n_blocks=n_blocks, **size
        ),
        "temperature": temperature,
        "training": _read_training(str(stored["training"])),
        "probe": probe,
        "bag": bag,
        "blocks": blocks,
        "ood_detector": OODDetector.from_arrays(scope, **size) if scope else None,
        "conformal": (
            Conformal.from_arrays(conformal, n_classes=len(names)) if conformal else None
        ),
        "fitted_images": FittedImages.from_arrays(fitted) if fitted else None,
        "content_sha256": file.content_sha256,
    }
    return fields, expected


def _check_head(head: Mapping[str, Any], bag: BagRule | None) -> None:
    """Refuse a head of another name than those there are, or without parameters."""
    if set(head) != {"name", "params"} or not isinstance(head["name"], str):
        raise BundleError(f"unknown head {head.get('name')!r}")
    name, learns = head["name"], bag is not None and bag.pooling == ATTENTION
    known = (ATTENTION,) if learns else (*HEAD_NAMES, *ATTENTION_HEADS)
    if name not in known and (learns or parse_ensemble(name) is None):
        raise BundleError(f"unknown head {name!r}")
    if not isinstance(head["params"], dict):
        raise BundleError("params must be a JSON dict")


def _list_probe(probe: Features) -> dict[str, NDArray[Any]]:
    if isinstance(probe, MapRows):
        return {"probe/maps": np.asarray(probe.source[probe.rows], "<f2")}
    if isinstance(probe, Bags):
        return {"probe/X": probe.values, "probe/offsets": np.asarray(probe.offsets, "<i8")}
    return {"probe/X": probe}


def _take_probe(
    arrays: dict[str, NDArray[Any]], bag: BagRule | None, *, maps: bool
) -> tuple[Features, NDArray[np.float64]]:
    names = _PROBE if bag is None else (*_PROBE, "probe/offsets")
    if maps:
        names = ("probe/maps", "probe/probabilities")
    if not set(arrays).issuperset(names):
        raise BundleError("the probe vectors are missing")
    probe, expected, *offsets = (arrays.pop(name) for name in names)
    if maps:
        return MapRows.collect(probe), expected
    return Bags(values=probe, offsets=offsets[0]) if offsets else probe, expected


def _check_maps(head: str, spec: FeatureSpec, *, bag: BagRule | None) -> None:
    """Refuse a head of vectors with the spec of maps, or the reverse, or of bags of maps."""
    if takes_maps(head) != (spec.pooling == "none"):
        raise BundleError(f"the {head} head has a spec whose pooling is {spec.pooling!r}")
    if takes_maps(head) and bag is not None:
        raise BundleError(f"the {head} head takes maps, and no bags")


def _read_bag(stored: Mapping[str, Any], class_names: tuple[str, ...]) -> BagRule | None:
    """Read how images become one example; None where the file is of images."""
    document = read_json(stored, "bag", dict) if "bag" in stored else {}
    if not document:
        return None
    rule = read_record(BagRule, document, error=BundleError)
    find_decisive_class(rule.label, class_names)
    return rule


def _read_blocks(
    stored: Mapping[str, Any], arrays: dict[str, NDArray[Any]], spec: FeatureSpec
) -> Blocks | None:
    """Read the blocks of a head; None where it takes features of one cache."""
    document = read_json(stored, "blocks", list) if "blocks" in stored else []
    found = take_all(arrays, "blocks", BLOCK_ARRAYS)
    if found and not document:
        raise BundleError("blocks has arrays without names")
    if not document:
        return None
    blocks = Blocks.from_file(document, found)
    if blocks.spec != spec:
        raise BundleError("the spec is not that of the blocks")
    return blocks


def _read_names(stored: Mapping[str, Any]) -> tuple[str, ...]:
    names = read_json(stored, "class_names", list)
    texts = [name for name in names if isinstance(name, str)]
    if len(names) < 2 or len(set(texts)) != len(names):
        raise BundleError("class_names must be two or more different texts")
    return tuple(texts)


def _read_training(text: str) -> FitRecord:
    try:
        return FitRecord.from_json(text)
    except BundleError as error:
        raise BundleError(f"training: {error}") from error
