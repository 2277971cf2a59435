"""What a full report is about: an evaluation, the head, the cache and its audit."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from brainfeat.errors import ParameterError
from brainfeat.evaluation.results import Evaluation
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.report.wording import name_noun, name_split

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import Predictions
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit


@dataclass(frozen=True, kw_only=True)
class Study:
    """An evaluation together with what it was made from.

    Attributes
    ----------
    evaluation : Evaluation
    predictions : Predictions
        Those of the evaluation.
    bundle : HeadBundle
    cache : FeatureCache
    audit : Audit
    command : str or None
        The command line that made the evaluation.
    sets : SetsEvaluation or None
        Sets of which the evaluation is one.
    """

    evaluation: Evaluation
    predictions: "Predictions"
    bundle: "HeadBundle"
    cache: "FeatureCache"
    audit: "Audit"
    command: str | None
    sets: "SetsEvaluation | None" = None

    @property
    def is_same_cache(self) -> bool:
        """Whether the head was fitted on the cache that it was measured on."""
        return self.bundle.training.cache_sha256 == self.cache.content_sha256

    @property
    def noun(self) -> str:
        """What was measured, in a word: ``"image"`` or ``"patient"``."""
        return name_noun(self.evaluation)

    @property
    def n_images(self) -> int:
        """The number of images that were measured, also where their groups were."""
        found = self.evaluation.n_images
        return self.evaluation.n if found is None else found

    @property
    def split_name(self) -> str:
        """The images that were measured, in words."""
        return name_split(self.evaluation.split)


def make_study(
    evaluation: Evaluation,
    *,
    bundle: "HeadBundle",
    cache: "FeatureCache",
    audit: "Audit | None",
    command: str | None,
    sets: "SetsEvaluation | None" = None,
) -> Study:
    """Collect what a full report is about.

    Raises
    ------
    ParameterError
        The evaluation has no predictions of images of a cache, or is not that of one of the sets.
    """
    if not isinstance(evaluation, Evaluation) or evaluation.predictions is None:
        raise ParameterError(
            f"got {type(evaluation).__name__} without predictions; expected the evaluation of a "
            "head on a cache; call brainfeat.evaluate"
        )
    if sets is not None and all(entry.evaluation is not evaluation for entry in sets.sets):
        raise ParameterError("the evaluation is not that of one of the sets; pass one of theirs")
    return Study(
        evaluation=evaluation,
        predictions=evaluation.predictions,
        bundle=bundle,
        cache=cache,
        audit=audit_duplicates(cache) if audit is None else audit,
        command=command,
        sets=sets,
    )
