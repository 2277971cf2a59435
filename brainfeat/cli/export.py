"""``brainfeat export``: base and head as one network, for other programs."""

from pathlib import Path

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import options

EXAMPLES = """\b
Examples:
  brainfeat export head.h5 -o model.keras
  brainfeat export head.h5 -o model.tflite --quantize int8
"""


@click.command(
    "export", short_help="Write base and head as one Keras or LiteRT model.", epilog=EXAMPLES
)
@click.argument("head", type=click.Path(path_type=Path))
@options.output_option
@options.weights_option
@click.option(
    "--quantize",
    type=click.Choice(["float16", "int8"]),
    help="Number format of the weights of a LiteRT model, which makes it smaller.",
)
@options.overwrite_option
@options.verify_option
def command(
    head: Path,
    *,
    output: Path,
    weights: str,
    quantize: str | None,
    overwrite: bool,
    verify: Verify,
) -> None:
    """Write HEAD, a file that fit-head wrote, and its base as one network.

    OUTPUT ends in .keras, or in .tflite for LiteRT. The network takes images in [0, 1], at the size
    in the spec of the head, and returns calibrated probabilities. Unlike predict, it cannot
    abstain.
    """
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.prediction.export import export_head

    bundle = HeadBundle.load(head, verify=verify)
    export_head(
        bundle,
        output,
        weights=weights,
        quantize=quantize,  # type: ignore[arg-type]
        overwrite=overwrite,
    )
    megabytes = output.stat().st_size / 1e6
    options.say(f"{output} written, {megabytes:.1f} MB; classes: {', '.join(bundle.class_names)}")
