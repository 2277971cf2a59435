"""The commands that lead to results, with the main options that the files record."""

import shlex
from collections.abc import Sequence

from brainfeat.cache.groups import SAME_LABEL
from brainfeat.cache.spec import POOLINGS, FeatureSpec
from brainfeat.heads.bags import ATTENTION
from brainfeat.report.study import Study

# Options of how volumes are cut, with the text that is the default of each in a spec.
_CUT_BY_DEFAULT = {
    "slices": "all",
    "window": "auto",
    "orientation": "stored-or-ras-axial",
    "volume": "",
}


def list_commands(study: Study) -> list[str]:
    """List the commands: an extraction for each cache, the fit, and what the study was made by.

    Parameters
    ----------
    study : Study

    Returns
    -------
    list of str
    """
    bundle, blocks = study.bundle, study.bundle.blocks
    caches, join = {"features": [study.cache.spec]}, list[str]()
    if blocks is not None and blocks.is_one_set:
        caches = {name: [spec] for name, spec in zip(blocks.names, blocks.specs, strict=True)}
        join = ["--join", f"{blocks.on}s"]
    elif blocks is not None:
        caches = {"features": list(blocks.specs)}
        join = ["--layer", "+".join(blocks.names)]
    fit = ["fit-head", *(f"{name}.h5" for name in caches), "-o", "head.h5", *join]
    if bundle.bag is not None:
        fit += ["--bag", bundle.bag.pooling]
        if bundle.bag.label != SAME_LABEL:
            fit += ["--group-label", bundle.bag.label]
    if bundle.bag is None or bundle.bag.pooling != ATTENTION:
        fit += ["--head", bundle.head]
    fit += ["--random-state", str(bundle.training.random_state)]
    for name, value in sorted(bundle.params.items()):
        fit += ["--param", f"{name}={value}"]
    extracts = [_list_words(name, specs) for name, specs in caches.items()]
    lines = [shlex.join(["brainfeat", *words]) for words in (*extracts, fit)]
    return [*lines, study.command] if study.command else lines


def _list_words(name: str, specs: Sequence[FeatureSpec]) -> list[str]:
    """List the words of the command that makes a cache; the first word of a crop is the option."""
    spec = specs[0]
    cut = dict(part.split("=", 1) for part in spec.volumes.split())
    return [
        *("extract", "DATA", "-o", f"{name}.h5", "--backbone", spec.backbone),
        *("--layer", ",".join(one.layer for one in specs)),
        *(("--pooling", spec.pooling) if spec.pooling in POOLINGS else ()),
        *("--size", str(spec.input_size), "--scaling", spec.scaling),
        *("--precision", spec.precision),
        *(("--crop", spec.crop.partition(" ")[0]) if spec.crop else ()),
        *(
            word
            for option, default in _CUT_BY_DEFAULT.items()
            if cut.get(option, default) != default
            for word in (f"--{option}", cut[option])
        ),
    ]
