"""What a full report is about: an evaluation, the head, the cache and its audit."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from brainfeat.errors import ParameterError
from brainfeat.evaluation.results import Evaluation
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.report.wording import name_split

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import Predictions
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
    """

    evaluation: Evaluation
    predictions: "Predictions"
    bundle: "HeadBundle"
    cache: "FeatureCache"
    audit: "Audit"
    command: str | None

    @property
    def is_same_cache(self) -> bool:
        """Whether the head was fitted on the cache that it was measured on."""
        return self.bundle.training.cache_sha256 == self.cache.content_sha256

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
) -> Study:
    """Collect what a full report is about.

    Raises
    ------
    ParameterError
        The evaluation has no predictions of images of a cache.
    """
    if not isinstance(evaluation, Evaluation) or evaluation.predictions is None:
        raise ParameterError(
            f"got {type(evaluation).__name__} without predictions; expected the evaluation of a "
            "head on a cache; call brainfeat.evaluate"
        )
    return Study(
        evaluation=evaluation,
        predictions=evaluation.predictions,
        bundle=bundle,
        cache=cache,
        audit=audit_duplicates(cache) if audit is None else audit,
        command=command,
    )
