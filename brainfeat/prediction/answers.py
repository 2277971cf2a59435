"""What a head says of one image, and from the slices of a volume, of the volume."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNCERTAIN = "uncertain"
OUT_OF_SCOPE = "out-of-scope"
NOTICE = "This is no diagnosis: brainfeat is research software and not a medical device."


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a head says of one image.

    Attributes
    ----------
    path : str
        As it was given; of a volume, whose path can hold a name, its number instead.
    frame : int or None
        Number of the slice in a volume, from 1.
    decision : str or None
        A class; ``"uncertain"`` where several cannot be ruled out, or none is likely;
        ``"out-of-scope"`` where the image is unlike all that the head was fitted on; None where it
        cannot be read.
    probabilities : dict of str to float
        Of each class, calibrated.
    set : list of str or None
        The classes that cannot be ruled out at the coverage, the likeliest first; None where the
        head does not hold what tells them.
    out_of_scope : dict or None
        ``score``, ``threshold`` and whether the image is ``refused``; None likewise. A threshold of
        None refuses nothing: too few images were held out.
    forced : bool
        Whether the decision is the likeliest class though there was reason for none.
    nearest : list of dict
        ``label`` and ``distance`` (one minus the cosine of the features) of the most similar
        training images that the head keeps.
    error : str or None
        Why the image cannot be read.
    slices : dict or None
        Of the answer for a whole volume: their number ``n``, how many had each decision
        (``decisions``), and the frames that were called so (``carried_by``), the surest first.
    """

    path: str
    frame: int | None = None
    decision: str | None = None
    probabilities: dict[str, float]
    set: list[str] | None = None
    out_of_scope: dict[str, Any] | None = None
    forced: bool = False
    nearest: list[dict[str, Any]]
    error: str | None = None
    slices: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON can hold; of an image that cannot be read, path and error alone."""
        if self.error is not None:
            return {"path": self.path, "frame": self.frame, "error": self.error}
        document = asdict(self)
        del document["error"]
        if self.slices is None:
            del document["slices"]
        return document


def decide(likeliest: str, kept: list[str] | None, scope: dict[str, Any] | None) -> str:
    """Give the likeliest class where nothing speaks against it, or else an abstention."""
    if scope is not None and scope["refused"]:
        return OUT_OF_SCOPE
    return likeliest if kept is None or kept == [likeliest] else UNCERTAIN


def tell_unreadable(path: str, reason: str) -> Prediction:
    """Give the answer for what cannot be read."""
    return Prediction(path=path, probabilities={}, nearest=[], error=reason)


def average_slices(answers: Sequence[Prediction], names: Sequence[str]) -> NDArray[np.float64]:
    """Average the probabilities of the slices that are in scope, or of all where none is.

    Parameters
    ----------
    answers : sequence of Prediction
        Of the slices of a volume.
    names : sequence of str
        The k classes.

    Returns
    -------
    ndarray of shape (k,), float64
    """
    looked = [answer for answer in answers if _find_unforced(answer) != OUT_OF_SCOPE] or answers
    shares = [[answer.probabilities[name] for name in names] for answer in looked]
    mean: NDArray[np.float64] = np.mean(shares, axis=0)
    return mean


def pool_slices(
    answers: Sequence[Prediction],
    names: Sequence[str],
    *,
    kept: Sequence[str] | None,
    force: bool = False,
) -> Prediction:
    """Make one answer of those for the slices of a volume.

    Its probabilities are the mean of the slices in scope. It is out of scope where all slices are.
    It names a class only where no slice was called another: those classes are not ruled out. The
    coverage that holds for images is not promised for volumes.

    Parameters
    ----------
    answers : sequence of Prediction
        Of the slices.
    names : sequence of str
        The classes.
    kept : sequence of str or None
        Those that cannot be ruled out by the mean.
    force : bool
        Whether a class is named though there is reason for none.

    Returns
    -------
    Prediction
    """
    called = [_find_unforced(answer) for answer in answers]
    p = dict(zip(names, map(float, average_slices(answers, names)), strict=True))
    ranked = sorted(names, key=lambda name: -p[name])
    carried_by = {
        name: [
            answers[place].frame
            for place in sorted(
                (place for place, decision in enumerate(called) if decision == name),
                key=lambda place: -answers[place].probabilities[name],
            )
        ]
        for name in ranked
        if name in called
    }
    scope = _pool_scope(answers)
    known = None if kept is None else [n for n in ranked if n in kept or n in carried_by]
    decision = decide(ranked[0], known, scope)
    forced = force and decision in (UNCERTAIN, OUT_OF_SCOPE)
    return Prediction(
        path=answers[0].path,
        decision=ranked[0] if forced else decision,
        probabilities=p,
        set=known,
        out_of_scope=scope,
        forced=forced,
        nearest=[],
        slices={"n": len(answers), "decisions": dict(Counter(called)), "carried_by": carried_by},
    )


def _find_unforced(answer: Prediction) -> str:
    if not answer.forced:
        return str(answer.decision)
    return OUT_OF_SCOPE if answer.out_of_scope and answer.out_of_scope["refused"] else UNCERTAIN


def _pool_scope(answers: Sequence[Prediction]) -> dict[str, Any] | None:
    """Take the slice that is most like the training images."""
    scopes = [answer.out_of_scope for answer in answers if answer.out_of_scope is not None]
    return min(scopes, key=lambda scope: float(scope["score"])) if scopes else None
