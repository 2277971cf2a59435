"""What is reached without learning, beside what the head reaches, in a table."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from brainfeat.evaluation.units import GROUP
from brainfeat.report.blocks import Cell, Table, estimate
from brainfeat.report.wording import METRIC_NAMES, name_subset

if TYPE_CHECKING:
    from brainfeat.evaluation.floors import Floor
    from brainfeat.evaluation.results import Evaluation

_METRICS = ("accuracy", "balanced_accuracy")


def list_floors(evaluation: "Evaluation") -> Iterator[Table]:
    """Yield a table of the head and its floors, if these are known."""
    floors = evaluation.floors
    if floors is None:
        return
    rows: dict[str, Floor | None] = {
        "nearest neighbour": floors.nearest_neighbour,
        "neighbour by other features": floors.random_weights,
        "largest class": floors.largest_class,
    }
    everything, new = floors.largest_class.all, floors.largest_class.without_copies
    subsets = ("all",) if new is None or new == everything else ("without_copies", "all")
    votes = " A patient gets the class of most of its images." if evaluation.unit == GROUP else ""
    head = [getattr(evaluation.subsets, subset) for subset in subsets]
    yield Table(
        title="Floors: what is reached without learning",
        head=(
            "predicted by",
            *(
                f"{METRIC_NAMES[name]}, {name_subset(s, evaluation)}"
                for s in subsets
                for name in _METRICS
            ),
        ),
        rows=[
            (
                "this head",
                *(estimate(getattr(subset, name)) for subset in head for name in _METRICS),
            ),
            *(
                (words, *_list_cells(floor, subsets))
                for words, floor in rows.items()
                if floor is not None and floor.reason is None
            ),
        ],
        note=" ".join(
            f"{words.capitalize()}: not known, because {floor.reason}."
            for words, floor in rows.items()
            if floor is not None and floor.reason is not None
        ),
        explanation="The nearest neighbour of an image is the most similar image that the head was "
        "fitted or validated on; other features are those of the cache that was given as a floor, "
        f"such as one of random weights.{votes} A head that is hardly better has learned little "
        "beyond what similar images tell.",
    )


def _list_cells(floor: "Floor", subsets: tuple[str, ...]) -> Iterator[Cell]:
    for subset in subsets:
        scores = getattr(floor, subset)
        yield from (estimate(getattr(scores, name, None)) for name in _METRICS)
