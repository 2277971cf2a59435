"""FitRecord: how a head was fitted, as its file records it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import BundleError
from brainfeat.heads.calibration import Calibration
from brainfeat.heads.generation import Generated
from brainfeat.heads.joins import JoinRecord
from brainfeat.heads.variation import LeftOutSources, Repeats
from brainfeat.leakage.results import AuditSummary
from brainfeat.metrics import Metrics

# Metrics of images in a record.
_MEASURED = ("val", "test", "test_without_copies")
# Parts that a record has only where there are any.
_LEFT_OUT = ("bag_sizes", "generated", "generation", "member_fits")


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Numbers of images, or of rows, of each split.

    Attributes
    ----------
    train, val, test : int
    """

    train: int
    val: int
    test: int


@dataclass(frozen=True, kw_only=True)
class BagSizes:
    """Numbers of images in the groups, such as patients, that a bag head was fitted on.

    Attributes
    ----------
    images : SplitSizes
        Images of the groups of each split.
    least, most : int
        Images of the smallest and of the largest group, of any split.
    median : float
    """

    images: SplitSizes
    least: int
    median: float
    most: int


@dataclass(frozen=True, kw_only=True)
class GeneratedRows:
    """Generated images of a cache, which count in no split.

    Attributes
    ----------
    images, rows : int
        Images that the head was fitted on, and rows: these and their augmented views.
    copies : int
        Images that were left out, because they are copies of real ones.
    test_copies : int
        Those of them that are copies of an image of the table's test split.
    """

    images: int
    rows: int
    copies: int
    test_copies: int


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Names of the images that the fit held out, where the table has no splits.

    Attributes
    ----------
    val, test : tuple of str
        Digests of path and content, as :meth:`brainfeat.FeatureCache.image_ids` returns them.
    """

    val: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation of a metric over folds.

    Attributes
    ----------
    mean, std : float
    """

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class CrossValidationScores:
    """Metrics of a head over the folds of a cross-validation.

    Attributes
    ----------
    n_folds : int
    out_of_fold : Metrics
        Of the out-of-fold predictions of all images together.
    accuracy, balanced_accuracy, log_loss : Spread
        Over the folds.
    sources : LeftOutSources or None
        Each source, where folds left one out at a time; else None.
    groups : Metrics or None
        Of the groups of the table, such as patients, by the mean of the out-of-fold probabilities
        of the images of each; None where they were not asked for.
    """

    n_folds: int
    out_of_fold: Metrics
    accuracy: Spread
    balanced_accuracy: Spread
    log_loss: Spread
    sources: LeftOutSources | None = None
    groups: Metrics | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as what JSON can hold."""
        return {
            **write_record(self),
            "out_of_fold": self.out_of_fold.to_dict(),
            "groups": None if self.groups is None else self.groups.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A head with parameters, and its cross-validated scores.

    Attributes
    ----------
    rank : int or None
        1 is the best; None where the candidate could not be fitted.
    head : str
        Name of the head.
    params : dict
        Parameters that it was made with.
    mean, std : float or None
        Mean and standard deviation of the metric of the search over the folds; None where the
        candidate could not be fitted, as `log_loss`.
    log_loss : float or None
        Mean log loss over the folds.
    seconds : float
        Sum of the durations of its fits, which may have run in parallel.
    warnings : tuple of str
        Warnings of scikit-learn, such as that a fit did not converge.
    error : str or None
        Why the candidate could not be fitted.
    """

    rank: int | None
    head: str
    params: dict[str, Any]
    mean: float | None
    std: float | None
    log_loss: float | None
    seconds: float
    warnings: tuple[str, ...]
    error: str | None


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """The candidates of a search.

    Attributes
    ----------
    metric : str
        The metric that candidates are ranked by.
    n_folds : int
        Number of folds of the cross-validation.
    chosen : int
        Rank of the candidate that was saved.
    candidates : tuple of Candidate
        In the order of their ranks; those that could not be fitted come last.
    """

    metric: str
    n_folds: int
    chosen: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, kw_only=True)
class History:
    """Metrics of each epoch of a dense head.

    Attributes
    ----------
    loss, accuracy : tuple of float
        Of the training rows, with dropout.
    val_loss, val_accuracy, val_precision, val_recall, val_f1 : tuple of float, or None
        Of the validation rows; the last three are means over the classes.
    """

    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    val_loss: tuple[float, ...] | None = None
    val_accuracy: tuple[float, ...] | None = None
    val_precision: tuple[float, ...] | None = None
    val_recall: tuple[float, ...] | None = None
    val_f1: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(curve) for curve in self.curves().values()}
        if len(lengths) != 1 or 0 in lengths:
            raise BundleError(f"the curves must have one value per epoch; got {sorted(lengths)}")

    def curves(self) -> dict[str, tuple[float, ...]]:
        """Return the metrics that there are, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: curve for name, curve in values.items() if curve is not None}


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """How a head was fitted. What a file does not record is None.

    Attributes
    ----------
    split, rows : SplitSizes or None
        Images of each split; and rows, which are images and their augmented views. Of a bag head,
        groups take the place of images in all numbers here but `bag_sizes`, `leakage` and
        `held_out`.
    bag_sizes : BagSizes or None
        Of a bag head, how many images the groups have.
    generated : GeneratedRows or None
        Generated images that it was fitted on; None where the cache has none.
    held_out : HeldOut or None
        Images that the fit held out; None where the table has splits.
    group_by : str or None
        What no split and no fold divides: ``"column"``, ``"copies"``, ``"near-duplicates"``,
        ``"exact-duplicates"``, ``"numbers:K"`` (blocks of K numbers in file names) or ``"none"``.
    leakage : AuditSummary or None
        Audit of the cache, without paths.
    refitted_on_val : bool or None
        Whether the head was fitted again on train and val after `val` had been computed.
    val, test : Metrics or None
        Metrics of the validation and of the test images; None where there are none.
    test_without_copies : Metrics or None
        Metrics of the test images of which train and val have no copy; None where these are all
        images or none, or copies were not looked for.
    cv : CrossValidationScores or None
        None without cross-validation.
    calibration : Calibration or None
        How the temperature was fitted.
    search : SearchRecord or None
        None where nothing was compared.
    repeats : Repeats or None
        None without repeats.
    join : JoinRecord or None
        The caches that were joined; None for a head of one cache.
    generation : Generated or None
        Rows that a generator added to the training rows; None without any.
    history : History or None
        None for a head that is not fitted in epochs.
    class_weight : str, dict of str to float, or None
        As in the parameters of the head.
    ood_examples : int or None
        Number of out-of-distribution examples; None without any.
    member_fits : int or None
        How many fits of members the fit of an ensemble took; None for another head.
    random_state : int or None
        Seed of the fit.
    cache_sha256 : str or None
        Digest of the content of the cache.
    versions : dict of str to str, or None
        Versions of Python and of the libraries.
    seconds : float or None
        Duration of the fit.
    """

    split: SplitSizes | None = None
    rows: SplitSizes | None = None
    bag_sizes: BagSizes | None = None
    generated: GeneratedRows | None = None
    held_out: HeldOut | None = None
    group_by: str | None = None
    leakage: AuditSummary | None = None
    refitted_on_val: bool | None = None
    val: Metrics | None = None
    test: Metrics | None = None
    test_without_copies: Metrics | None = None
    cv: CrossValidationScores | None = None
    calibration: Calibration | None = None
    search: SearchRecord | None = None
    repeats: Repeats | None = None
    join: JoinRecord | None = None
    generation: Generated | None = None
    history: History | None = None
    class_weight: str | Mapping[str, float] | None = None
    ood_examples: int | None = None
    member_fits: int | None = None
    random_state: int | None = None
    cache_sha256: str | None = None
    versions: Mapping[str, str] | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as what JSON can hold.

        Examples
        --------
        >>> document = FitRecord(split=SplitSizes(train=70, val=15, test=15)).to_dict()
        >>> document["split"], document["cv"]
        ({'train': 70, 'val': 15, 'test': 15}, None)
        """
        measured = {name: getattr(self, name) for name in (*_MEASURED, "cv")}
        document = {
            **write_record(self),
            **{name: None if part is None else part.to_dict() for name, part in measured.items()},
        }
        # Left out, so that the files of heads without them stay what they were.
        for name in _LEFT_OUT:
            if document[name] is None:
                del document[name]
        return document

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned, or of an earlier version of it.

        Raises
        ------
        BundleError
            The text is not JSON, or a part is missing or of another type; the message says where.

        Examples
        --------
        >>> text = '{"random_state": 0, "strangers": 60}'  # codespell:ignore
        >>> FitRecord.from_json(text).ood_examples
        60
        """
        document = parse_json(text, error=BundleError)
        if not isinstance(document, dict):
            raise BundleError(f"expected a JSON object, got {type(document).__name__}")
        found = _rename_old_keys(document)
        for name in _MEASURED:
            found[name] = _read_metrics(found.get(name))
        if isinstance(found.get("cv"), dict):
            names = ("out_of_fold", "groups")
            parts = {name: _read_metrics(found["cv"].get(name)) for name in names}
            found["cv"] = {**found["cv"], **parts}
        return read_record(cls, found, error=BundleError)


def _read_metrics(document: Any) -> Any:
    """Read metrics where there are any; what is not an object is left for `read_record` to name."""
    if not isinstance(document, dict):
        return document
    return Metrics.from_dict(document, error=BundleError)


def _rename_old_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a record of a version that had other names; see docs/reference/bundle-format.md."""
    renamed = {"strangers": "ood_examples"}  # codespell:ignore
    found = {renamed.get(key, key): part for key, part in document.items()}
    if found.get("group_by") == "identical":
        found["group_by"] = "exact-duplicates"
    if isinstance(leakage := found.get("leakage"), dict):
        renamed = {"identical": "exact_duplicates", "near": "near_duplicates"}
        found["leakage"] = {renamed.get(key, key): part for key, part in leakage.items()}
    if isinstance(search := found.get("search"), dict):
        # It was always the best candidate that was saved.
        found["search"] = {"chosen": 1, **search}
    return found
