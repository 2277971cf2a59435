"""The one name that each metric and each subset has, in every output format."""

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
    "without_near_duplicates": "without near duplicates",
    "without_exact_duplicates": "without exact duplicates",
    "all": "all images",
}
# The same where there is little room.
SHORT_SUBSET_NAMES = {
    "without_near_duplicates": "no near duplicates",
    "without_exact_duplicates": "no exact duplicates",
    "all": "all images",
}
# What stands where a column of the table has no value.
NO_VALUE = "(none)"


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
