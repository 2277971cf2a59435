"""The option ``--head``: the name of a head, or an ensemble such as ``vote:svm+dense``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from brainfeat.cli import options
from brainfeat.errors import HeadError
from brainfeat.heads.ensemble_names import HOWS, N_FOLDS
from brainfeat.heads.kinds import ATTENTION_HEADS, HEAD_NAMES, parse_ensemble

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache


class HeadName(click.Choice[str]):
    """A head, all of them, or an ensemble of heads."""

    def __init__(self) -> None:
        super().__init__([*HEAD_NAMES, *ATTENTION_HEADS, "all"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Convert the value."""
        if isinstance(value, str) and ":" in value:
            try:
                parse_ensemble(value)
            except HeadError as error:
                self.fail(str(error), param, ctx)
            return value
        return str(super().convert(value, param, ctx))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete a name, or the last member of an ensemble."""
        how, colon, rest = incomplete.partition(":")
        if not colon:
            starts = [CompletionItem(f"{word}:") for word in HOWS if word.startswith(incomplete)]
            return super().shell_complete(ctx, param, incomplete) + starts
        *before, last = rest.split("+")
        start = f"{how}:{''.join(f'{member}+' for member in before)}"
        return [
            CompletionItem(start + name)
            for name in HEAD_NAMES
            if name.startswith(last) and name not in before
        ]


head_option = click.option(
    "--head",
    type=HeadName(),
    default="dense",
    show_default=True,
    help="Classifier to fit; 'all' cross-validates every one but the attention heads "
    "(attention-pool, se and cbam), and saves the best. attention-pool and cbam need features of "
    "extract --pooling none. "
    "An ensemble has a name such as vote:svm+dense (the mean of calibrated probabilities), "
    "stack:svm+dense (a logistic regression on them), or folds:svm (the models of the folds).",
)
how_option = click.option(
    "--how",
    type=click.Choice(["features", "vote", "stack"]),
    help="Of FEATURES that are joined on images: one head takes all features (features), or each "
    "FEATURES has a head of its own, and these vote or are stacked.  [default: features]",
)


def announce_cost(
    head: str, params: Mapping[str, Any], *, how: str | None, cache: "FeatureCache"
) -> None:
    """Say in one line on stderr how many fits an ensemble takes."""
    from brainfeat.training.block_votes import choose_ensemble
    from brainfeat.training.calibrated_fit import CALIBRATION_FOLDS

    name, widths = choose_ensemble(head, how, cache)
    ensemble = parse_ensemble(name)
    if ensemble is None:
        return
    n_folds = params.get("n_folds", N_FOLDS)
    fits = ensemble.count_fits(n_folds) if isinstance(n_folds, int) else 0
    options.say(
        f"{name}: the ensemble is fitted {CALIBRATION_FOLDS + 2} times to be measured and "
        f"calibrated, {fits * (len(widths) or 1):,} fits of its members each time",
        err=True,
    )
