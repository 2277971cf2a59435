"""The records that an audit consists of, and its findings in sentences."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import BrainfeatError, ParameterError
from brainfeat.leakage.duplicates import Labels, explain_chain
from brainfeat.leakage.generated import GeneratedImages
from brainfeat.leakage.sources import ClassSource
from brainfeat.text import count

# What an accuracy must be above chance by, beside two (or three) of its standard errors.
_SHORTCUT_MARGIN = 0.05
_PERMUTATION_MARGIN = 0.01

DuplicateKind = Literal["exact-duplicates", "copies", "near-duplicates"]


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates:
    """Files of the same content.

    Attributes
    ----------
    groups : int
        Groups of two files or more.
    files : int
        Files in these groups.
    cross_split_groups : int
        Groups whose files are in several splits.
    test_files : int
        Files of the test split of which train or val has an exact duplicate.
    """

    groups: int
    files: int
    cross_split_groups: int
    test_files: int


@dataclass(frozen=True, kw_only=True)
class CopyGroups:
    """Images that show the same pixels in one of eight orientations, altered or not.

    Attributes
    ----------
    threshold : float
        Least similarity of a pair: the cosine of their signatures.
    groups : int
        Groups of two images or more that chains of copies connect.
    images : int
        Images in these groups.
    cross_split_groups : int
        Groups whose images are in several splits.
    test_files : int
        Images of the test split of which train or val has a copy.
    by_orientation : dict of str to int
        These test images by the orientation of their most similar copy in train or val, but for
        those that have only an altered one.
    altered : int or None
        Those of them that have only an altered copy there: rotated by some degrees, cropped or
        padded. None where altered copies were not looked for.
    """

    threshold: float
    groups: int
    images: int
    cross_split_groups: int
    test_files: int
    by_orientation: Mapping[str, int]
    altered: int | None = None


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """Clusters of images that chains of similar pairs connect.

    Attributes
    ----------
    threshold : float
        Least similarity of a pair: the cosine of their centred features.
    clusters : int
        Clusters of two images or more.
    images : int
        Images in these clusters.
    largest : int
        Images in the largest cluster.
    sizes : tuple of int
        Images in the five largest clusters of two or more.
    chained : bool
        Whether one cluster has so many of the images that chains have joined images that are not
        alike.
    cross_split_clusters : int
        Clusters whose images are in several splits.
    test_files : int
        Images of the test split in a cluster with an image of train or val.
    """

    threshold: float
    clusters: int
    images: int
    largest: int
    sizes: tuple[int, ...]
    chained: bool
    cross_split_clusters: int
    test_files: int


@dataclass(frozen=True, kw_only=True)
class LabelConflict:
    """Images that are duplicates of each other and have different labels.

    Attributes
    ----------
    kind : {"exact-duplicates", "copies", "near-duplicates"}
    paths, labels : tuple of str
        Of each image.
    orientation : str or None
        Of copies, how the second image must be turned to look like the first, by the name that
        Pillow has for it, such as ``"flip_left_right"``; else None.
    """

    kind: DuplicateKind
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    orientation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """A random forest that sees what is known of a file without its pixels.

    Attributes
    ----------
    accuracy : float
        Mean of five folds.
    error : float
        Its standard error.
    balanced_accuracy : float
        Mean of five folds.
    chance : float
        Fraction of the largest class.
    images : int
        Images that took part, at most 20,000.
    columns : tuple of str
        What the forest sees: width, height, channels, file size and source.
    """

    accuracy: float
    error: float
    balanced_accuracy: float
    chance: float
    images: int
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """The nearest neighbour on labels that are shuffled between clusters of duplicates.

    Attributes
    ----------
    accuracy, std : float
        Mean over the shuffles, and standard deviation. Above chance, duplicates reveal the labels.
    chance : float
        How often two labels agree that are drawn as often as the shuffled and the predicted ones.
    n_permutations : int
        Number of shuffles.
    head : str
        ``"nearest neighbour"``.
    protocol : str
        Which images are predicted from which.
    """

    accuracy: float
    std: float
    chance: float
    n_permutations: int
    head: str
    protocol: str


@dataclass(frozen=True, kw_only=True)
class AuditSummary:
    """An audit without the paths of images, as a head file keeps it.

    Attributes
    ----------
    images, exact_duplicates, near_duplicates, groups_across_splits, patient_key, shortcut, \
permutation, copies
        As in :class:`Audit`.
    label_conflicts : int
        Their number.
    findings : tuple of str
        One sentence each, the most serious first.
    """

    images: int
    exact_duplicates: ExactDuplicates
    near_duplicates: NearDuplicates | None
    groups_across_splits: int
    patient_key: str | None
    label_conflicts: int
    shortcut: Shortcut | None
    permutation: PermutationTest | None
    findings: tuple[str, ...]
    copies: CopyGroups | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as what JSON can hold."""
        return write_record(self)

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], *, error: type[BrainfeatError] = ParameterError
    ) -> Self:
        """Read what :meth:`to_dict` returned.

        Raises
        ------
        BrainfeatError
            An attribute is missing or of another type; of the type `error`.
        """
        return read_record(cls, document, error=error)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Duplicates and groups across the splits of a cache, and other reasons to doubt its metrics.

    Attributes
    ----------
    images : int
        Images that were looked at; augmented views are not.
    exact_duplicates : ExactDuplicates
    near_duplicates : NearDuplicates or None
        None where these were not looked for.
    groups_across_splits : int
        Groups of the table, such as patients, that are in several splits.
    patient_key : {"site", "random"} or None
        The key that the patients of volumes were hashed with; a random key gives a patient another
        group in another run. None for image files.
    label_conflicts : tuple of LabelConflict
    shortcut : Shortcut or None
        None where a class has too few clusters, or there are not two classes.
    permutation : PermutationTest or None
        None likewise.
    copies : CopyGroups or None
        None where these were not looked for: the cache has no signatures, or the audit is one of
        duplicates alone.
    class_sources : tuple of ClassSource
        Classes nearly all of whose images are of one source.
    clusters : ndarray of shape (n,), int
        Cluster of near duplicates of each row of the cache, −1 for augmented views; where near
        duplicates were not looked for, of exact duplicates. Empty in an audit read from JSON.
    copy_clusters : ndarray of shape (n,), int
        Group of copies and exact duplicates of each row of the cache, −1 for augmented views. Empty
        where copies were not looked for.
    seen_copies : ndarray of shape (n,), bool
        Whether train or val of the table has a copy or an exact duplicate of an image of neither.
        Empty likewise.
    content_sha256 : str
        Digest of the cache; empty in an audit read from JSON.
    generated : GeneratedImages or None
        The generated images, which are in no other number; None where there are none.
    """

    images: int
    exact_duplicates: ExactDuplicates
    near_duplicates: NearDuplicates | None
    groups_across_splits: int
    patient_key: str | None
    label_conflicts: tuple[LabelConflict, ...]
    shortcut: Shortcut | None
    permutation: PermutationTest | None
    copies: CopyGroups | None = None
    class_sources: tuple[ClassSource, ...] = ()
    clusters: Labels = field(
        default_factory=lambda: np.empty(0, np.intp), repr=False, compare=False
    )
    copy_clusters: Labels = field(
        default_factory=lambda: np.empty(0, np.intp), repr=False, compare=False
    )
    seen_copies: NDArray[np.bool_] = field(
        default_factory=lambda: np.empty(0, np.bool_), repr=False, compare=False
    )
    content_sha256: str = field(default="", repr=False, compare=False)
    generated: GeneratedImages | None = None

    @property
    def findings(self) -> list[str]:
        """What is wrong, one sentence each, the most serious first."""
        return list(_list_findings(self))

    def summary(self) -> AuditSummary:
        """Return the audit without paths: a head file does not name images."""
        return AuditSummary(
            images=self.images,
            exact_duplicates=self.exact_duplicates,
            near_duplicates=self.near_duplicates,
            groups_across_splits=self.groups_across_splits,
            patient_key=self.patient_key,
            label_conflicts=len(self.label_conflicts),
            shortcut=self.shortcut,
            permutation=self.permutation,
            findings=tuple(self.findings),
            copies=self.copies,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all but the arrays and the digest as what JSON can hold, and the findings.

        Returns
        -------
        dict
            The attributes by name, and ``findings``, a list of sentences.
        """
        document = write_record(self)
        for name in ("clusters", "copy_clusters", "seen_copies", "content_sha256"):
            del document[name]
        return {**document, "findings": self.findings}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned.

        Raises
        ------
        ParameterError
            The text is not JSON, or an attribute is missing or of another type.
        """
        return read_record(cls, parse_json(text, error=ParameterError), error=ParameterError)


def _list_findings(audit: Audit) -> Iterator[str]:
    exact, near = audit.exact_duplicates, audit.near_duplicates
    kinds = [conflict.kind for conflict in audit.label_conflicts]
    if audit.generated and (memorised := audit.generated.explain()):
        yield memorised
    if number := kinds.count("exact-duplicates"):
        yield f"exact duplicates have different labels: {count(number, 'group')}"
    if exact.cross_split_groups:
        yield (
            f"exact duplicates are in several splits: {count(exact.cross_split_groups, 'group')}, "
            f"{count(exact.test_files, 'test image')} with a copy in train or val"
        )
    yield from _describe_copies(audit.copies, kinds.count("copies"))
    if near and (chain := explain_chain(near.largest, audit.images, near.threshold)):
        yield chain
    elif near and near.cross_split_clusters:
        yield (
            "near duplicates are in several splits: "
            f"{count(near.cross_split_clusters, 'cluster')}, "
            f"{count(near.test_files, 'test image')} with one in train or val"
        )
    if audit.groups_across_splits:
        yield f"groups of the table are in several splits: {audit.groups_across_splits:,}"
    if number := kinds.count("near-duplicates"):
        yield f"near duplicates have different labels: {count(number, 'cluster')}"
    if audit.shortcut:
        yield from _describe_shortcut(audit.shortcut)
    yield from (found.explain() for found in audit.class_sources if found.alone)
    if audit.permutation:
        yield from _describe_permutation(audit.permutation)


def _describe_copies(found: CopyGroups | None, conflicts: int) -> Iterator[str]:
    if conflicts:
        yield f"copies have different labels: {count(conflicts, 'pair')}"
    if found and found.cross_split_groups:
        turned = sum(n for name, n in found.by_orientation.items() if name != "upright")
        altered = f", {found.altered:,} rotated, cropped or padded" if found.altered else ""
        yield (
            f"copies are in several splits: {count(found.cross_split_groups, 'group')}, "
            f"{count(found.test_files, 'test image')} with a copy in train or val, {turned:,} of "
            f"them mirrored or turned{altered}"
        )


def _describe_shortcut(found: Shortcut) -> Iterator[str]:
    if found.accuracy - 2 * found.error > found.chance + _SHORTCUT_MARGIN:
        yield (
            f"the class can be predicted without the pixels: {', '.join(found.columns)} give an "
            f"accuracy of {found.accuracy:.3f}, where chance is {found.chance:.3f}"
        )


def _describe_permutation(found: PermutationTest) -> Iterator[str]:
    error = found.std / sqrt(found.n_permutations)
    if found.accuracy - found.chance > max(_PERMUTATION_MARGIN, 3 * error):
        yield (
            f"shuffled labels are predicted with an accuracy of {found.accuracy:.3f}, where chance "
            f"is {found.chance:.3f}: duplicates reveal the labels"
        )
