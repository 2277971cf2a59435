"""The one name that each metric and each subset has, in every output format."""

from typing import TYPE_CHECKING

from brainfeat.cache.joined import JoinedCaches
from brainfeat.evaluation.bootstrap import MIN_GROUPS, NO_IMAGES
from brainfeat.evaluation.units import IMAGE, name_unit
from brainfeat.text import count, name_some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from brainfeat.cache.cache import FeatureCache
    from brainfeat.cache.spec import FeatureSpec
    from brainfeat.evaluation.results import Subset, Subsets
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.metrics import Metrics

# Metrics by the name of their attribute.
METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
    "roc_auc": "macro ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "mcc": "Matthews correlation",
    "ece": "expected calibration error",
}
# Those that each subset of the images has, with intervals.
SUBSET_METRICS = ("accuracy", "balanced_accuracy", "f1_macro")
# Those of all images alone.
FURTHER_METRICS = ("roc_auc", "log_loss", "brier", "mcc")
CALIBRATION_METRICS = ("ece", "log_loss", "brier")

# Metrics of one class against the rest, by the name of their attribute.
CLASS_METRIC_NAMES = {
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
}

# Subsets of the images, the one to believe first.
SUBSET_NAMES = {
    "without_copies": "without copies",
    "without_near_duplicates": "without near duplicates",
    "without_exact_duplicates": "without exact duplicates",
    "all": "all images",
}
# The same where there is little room.
SHORT_SUBSET_NAMES = {
    "without_copies": "no copies",
    "without_near_duplicates": "no near duplicates",
    "without_exact_duplicates": "no exact duplicates",
    "all": "all images",
}
# What stands where a column of the table has no value.
NO_VALUE = "(none)"

# What each field of a spec says.
SPEC_MEANINGS = {
    "backbone": "convolutional base",
    "layer": "layer whose output is pooled",
    "n_features": "length of a feature vector",
    "weights_sha256": "SHA-256 of the weights",
    "pooling": "how the map of the layer becomes a vector",
    "input_size": "height and width in pixels of the input of the base",
    "resize": "how an image is resized to that input",
    "fit": "what happens to its aspect ratio",
    "colour": "colour channels",
    "orientation": "how an image is turned upright",
    "scaling": "values of the input: those that the weights were trained with, or 0 to 1",
    "precision": "number type of the computation",
    "dtype": "number type of the stored features",
    "volumes": "how images were made from volumes; empty for image files",
    "value_range": "what images of more than 8 bits are divided by",
    "quantization": "how numbers become 8-bit integers; empty for floating point",
    "crop": "what an image is cropped to before it is resized; empty for the whole image",
    "layers": "layers of a file of several; empty for one",
}


def name_base(bundle: "HeadBundle") -> str:
    """Name the base of a head; of joined caches, that of each block."""
    if bundle.blocks is None:
        return bundle.spec.backbone
    return _name_bases(bundle.blocks.names, bundle.blocks.specs)


def name_base_of_cache(cache: "FeatureCache") -> str:
    """Name the base of a cache; of joined caches, that of each block."""
    if not isinstance(cache, JoinedCaches):
        return cache.spec.backbone
    return _name_bases(cache.names, [block.spec for block in cache.caches])


def _name_bases(names: "Sequence[str]", specs: "Sequence[FeatureSpec]") -> str:
    named = zip(names, specs, strict=True)
    return " and ".join(f"{spec.backbone} ({name})" for name, spec in named)


def describe_passes(bundle: "HeadBundle") -> str:
    """Say how many passes of which base an image takes: layers of one base take one.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> describe_passes(SimpleNamespace(blocks=None, spec=SimpleNamespace(backbone="vgg16")))
    'one pass of vgg16 for each image'
    """
    if bundle.blocks is None:
        return f"one pass of {bundle.spec.backbone} for each image"
    names, specs = bundle.blocks.names, bundle.blocks.specs
    if bundle.takes_modalities:
        bases = [f"{spec.backbone} ({name})" for name, spec in zip(names, specs, strict=True)]
        return f"one pass of {', '.join(bases)} for each image of that block"
    bases = [
        f"{specs[places[0]].backbone} ({', '.join(names[place] for place in places)})"
        for places in bundle.blocks.bases
    ]
    return f"one pass of {' and one of '.join(bases)} for each image"


def name_noun(metrics: object) -> str:
    """Name what was measured, and is counted: ``"image"``, or ``"patient"`` for a group.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> name_noun(SimpleNamespace(unit="group")), name_noun(SimpleNamespace())
    ('patient', 'image')
    """
    return name_unit(getattr(metrics, "unit", IMAGE))


def name_subset(name: str, metrics: object) -> str:
    """Name a subset of what was measured.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> name_subset("all", SimpleNamespace(unit="group")), name_subset("without_copies", None)
    ('all patients', 'without copies')
    """
    return f"all {name_noun(metrics)}s" if name == "all" else SUBSET_NAMES[name]


def list_parts(metrics: "Metrics") -> "list[tuple[str, Metrics]]":
    """List the images that are described one after the other: those to believe first.

    Parameters
    ----------
    metrics : Metrics

    Returns
    -------
    list of (str, Metrics)
        The name of a subset, and what is measured of it: of the images of which the head has seen
        no copy, where there are some and others; and of all images.
    """
    copy_free = getattr(metrics, "copy_free", None)
    parts = [("without_copies", copy_free)] if copy_free is not None else []
    return [*parts, ("all", metrics)]


def describe_few(few: "Mapping[str, int]", noun: str = "image") -> str:
    """Name the classes of too few groups, and how many images or patients they have.

    Examples
    --------
    >>> describe_few({"meningioma": 17, "notumor": 0})
    'Fewer than 10 groups: meningioma (17 images), notumor (0 images)'
    """
    classes = [f"{name} ({count(number, noun)})" for name, number in few.items()]
    return f"Fewer than {MIN_GROUPS} groups: {name_some(classes)}"


def name_headline(subsets: "Subsets") -> str:
    """Name the subset to believe: without copies, or where these are not known, the next one."""
    kinds = ("without_copies", "without_near_duplicates", "without_exact_duplicates")
    return next((kind for kind in kinds if is_known(getattr(subsets, kind))), "all")


def is_known(subset: "Subset") -> bool:
    """Return whether it is known which images a subset has; it may have none."""
    return subset.n > 0 or subset.reason == NO_IMAGES


def capitalise(text: str) -> str:
    """Begin a text with a capital letter, and leave the rest as it is.

    Examples
    --------
    >>> capitalise("all images of the test split of GE scanners")
    'All images of the test split of GE scanners'
    """
    return text[:1].upper() + text[1:]


def name_split(split: str | None) -> str:
    """Name the images of a split.

    Examples
    --------
    >>> name_split("test"), name_split("all")
    ('the test split', 'all labelled images')
    """
    return "all labelled images" if split == "all" else f"the {split} split"
