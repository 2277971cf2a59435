"""The records of an evaluation on several sets: a row for each, and what they have in common."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import BrainfeatError, ParameterError
from brainfeat.evaluation.binomial import Interval
from brainfeat.evaluation.results import Evaluation, Results
from brainfeat.evaluation.units import IMAGE, name_unit
from brainfeat.evaluation.unpaired import SetDifference


@dataclass(frozen=True, kw_only=True)
class SetRow:
    """What a head is worth on the images of a set of which it has seen no copy.

    Attributes
    ----------
    images : str
        Which images: ``"without_copies"``, or ``"all"`` where it is not known which are copies.
    n, n_groups, left_out : int
        Number of these images and of their groups, and of the images of the set that were left out.
    accuracy, balanced_accuracy : float or None
        None without images.
    accuracy_interval, balanced_accuracy_interval : tuple of float, or None
        95 % intervals; None where there are too few groups.
    answered : float or None
        Fraction of the images for which the head gives one class; None for one that cannot abstain.
    answered_accuracy : float or None
        Of these.
    target_coverage, coverage : float or None
        Fraction of images whose prediction set has the true class: what was promised, and what is.
    coverage_interval : tuple of float, or None
        Exact binomial 95 % interval over groups.
    broken_coverage : tuple of str
        Classes whose coverage is below the target with its whole interval.
    calibration_error : float or None
        Expected calibration error.
    wrong, confident_errors : int
        Images whose predicted class is wrong, and those of them of which the head is confident.
    confident_above : float
        Probability of the predicted class above which it is.
    """

    images: str
    n: int
    n_groups: int
    left_out: int
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    balanced_accuracy: float | None = None
    balanced_accuracy_interval: Interval | None = None
    answered: float | None = None
    answered_accuracy: float | None = None
    target_coverage: float | None = None
    coverage: float | None = None
    coverage_interval: Interval | None = None
    broken_coverage: tuple[str, ...] = ()
    calibration_error: float | None = None
    wrong: int = 0
    confident_errors: int = 0
    confident_above: float | None = None


@dataclass(frozen=True, kw_only=True)
class SetEvaluation:
    """A head on one of several sets.

    Attributes
    ----------
    cache : str
        Path of the cache.
    is_test_part : bool
        Whether the images are those that the fit of the head held out for the test.
    row : SetRow
        The main results.
    difference : SetDifference or None
        To the head's own test part; None for that part, or where it is not known.
    evaluation : Evaluation
        All results.
    """

    cache: str
    is_test_part: bool
    row: SetRow
    difference: SetDifference | None
    evaluation: Evaluation

    @property
    def results(self) -> Results:
        """All that is measured of the images of the row."""
        found = self.evaluation.copy_free
        return self.evaluation if found is None or self.row.images == "all" else found

    @property
    def findings(self) -> list[str]:
        """What a reader must know of this set, one sentence each."""
        return [
            *self.evaluation.describe_classes(),
            *self._describe_copies(),
            *self._describe_trust(),
        ]

    def _describe_copies(self) -> Iterator[str]:
        if self.row.images == "all":
            reason = self.evaluation.subsets.without_copies.reason
            yield f"it is not known of which images the head has seen a copy: {reason}"
        elif not self.row.n:
            noun = name_unit(self.evaluation.unit)
            yield f"the head has seen a copy of every {noun}; nothing is known about new ones"

    def _describe_trust(self) -> Iterator[str]:
        results = self.results
        found = (
            results.abstention and results.abstention.describe_coverage(),
            results.confident_errors and results.confident_errors.describe(),
        )
        return (text for text in found if text)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The head's own test part, which the sets are compared with.

    Attributes
    ----------
    origin : str
        ``"set"`` where one of the sets has it, or ``"record"``: the confusion matrix in the file of
        the head, whose images are taken for independent and whose classes were predicted one by
        one.
    cache : str or None
        Path of the set.
    images : str
        ``"without_copies"`` or ``"all"``, as in :class:`SetRow`.
    n : int
    accuracy, balanced_accuracy : float
    """

    origin: str
    cache: str | None
    images: str
    n: int
    accuracy: float
    balanced_accuracy: float


@dataclass(frozen=True, kw_only=True)
class SetOverlap:
    """Two sets that have images in common.

    Attributes
    ----------
    first, second : str
        Paths of the caches.
    copies_first, copies_second : int
        Measured images of each of which the other has an exact duplicate or a copy.
    """

    first: str
    second: str
    copies_first: int
    copies_second: int


@dataclass(frozen=True, kw_only=True)
class SetsEvaluation:
    """A head on several sets.

    Attributes
    ----------
    sets : tuple of SetEvaluation
        In the order in which they were given.
    reference : Reference or None
        The head's own test part; None where it is not known.
    overlaps : tuple of SetOverlap
        Each two sets that have images in common.
    unsigned : tuple of str
        Paths of caches without signatures, which were not searched for such images.
    """

    sets: tuple[SetEvaluation, ...]
    reference: Reference | None
    overlaps: tuple[SetOverlap, ...]
    unsigned: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What was measured: ``"image"`` or ``"group"``."""
        return self.sets[0].evaluation.unit

    @property
    def findings(self) -> list[str]:
        """What a reader must know, one sentence each, set by set."""
        return self.describe([entry.cache for entry in self.sets])

    def describe(self, names: Sequence[str]) -> list[str]:
        """Return the findings with other names of the sets than their paths.

        Parameters
        ----------
        names : sequence of str
            One for each set.

        Returns
        -------
        list of str
        """
        named = {entry.cache: name for entry, name in zip(self.sets, names, strict=True)}
        found = [f"{named[entry.cache]}: {text}" for entry in self.sets for text in entry.findings]
        found += [
            f"{named[entry.first]} and {named[entry.second]} have images in common: "
            f"{entry.copies_first:,} of the former are copies of {entry.copies_second:,} of the "
            "latter"
            for entry in self.overlaps
        ]
        found += [
            f"{named[path]} has no signatures, by which copies in other sets are found"
            for path in self.unsigned
        ]
        if self.reference is None:
            found.append(
                "no set is compared with the test part of the fit, which has no image that is "
                "known to be new to the head"
                if self.unit == IMAGE
                else "no set is compared with the test part of the fit, which has no patients that "
                "are known to be new to the head; give the features of the fit, too"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as what JSON can hold, and the findings.

        Returns
        -------
        dict
            The attributes by name; of an evaluation as in
            :meth:`brainfeat.evaluation.results.Evaluation.to_dict`.
        """
        return {
            "sets": [
                {
                    "cache": entry.cache,
                    "is_test_part": entry.is_test_part,
                    "absent": list(entry.evaluation.absent),
                    "row": write_record(entry.row),
                    "difference": None
                    if entry.difference is None
                    else write_record(entry.difference),
                    "findings": entry.findings,
                    "evaluation": entry.evaluation.to_dict(),
                }
                for entry in self.sets
            ],
            "reference": None if self.reference is None else write_record(self.reference),
            "overlaps": [write_record(entry) for entry in self.overlaps],
            "unsigned": list(self.unsigned),
            "findings": self.findings,
        }

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], *, error: type[BrainfeatError] = ParameterError
    ) -> Self:
        """Read what :meth:`to_dict` returned.

        Raises
        ------
        BrainfeatError
            An attribute is missing or of another type.
        """
        entries = document.get("sets") if isinstance(document, Mapping) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise error("not an evaluation on sets: sets must be a list of objects")
        found = [Evaluation.from_dict(entry.get("evaluation"), error=error) for entry in entries]
        frame = read_record(_Frame, document, error=error)
        return cls(
            sets=tuple(
                SetEvaluation(**{**vars(entry), "evaluation": evaluation})
                for entry, evaluation in zip(frame.sets, found, strict=True)
            ),
            reference=frame.reference,
            overlaps=frame.overlaps,
            unsigned=frame.unsigned,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned.

        Raises
        ------
        ParameterError
            The text is not JSON, or as in :meth:`from_dict`.
        """
        return cls.from_dict(parse_json(text, error=ParameterError))


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A set without its evaluation, which has a reader of its own."""

    cache: str
    is_test_part: bool
    row: SetRow
    difference: SetDifference | None


@dataclass(frozen=True, kw_only=True)
class _Frame:
    sets: tuple[_Entry, ...]
    reference: Reference | None
    overlaps: tuple[SetOverlap, ...]
    unsigned: tuple[str, ...]
