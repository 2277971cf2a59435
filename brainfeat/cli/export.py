"""``brainfeat export``: base and head as one network, for other programs."""

from pathlib import Path

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import blocks, options

EXAMPLES = """\b
Examples:
  brainfeat export head.h5 -o model.keras
  brainfeat export head.h5 -o model.tflite --quantize int8
  brainfeat export head.h5 -o model.onnx
  brainfeat export head.h5 -o model.xml --quantize float16
"""


@click.command(
    "export", short_help="Write base and head as one model, for other programs.", epilog=EXAMPLES
)
@click.argument("head", type=click.Path(path_type=Path))
@options.output_option
@blocks.weights_option
@click.option(
    "--quantize",
    type=click.Choice(["float16", "int8"]),
    help="Number format of the weights, which makes the model smaller; not for .keras.",
)
@options.overwrite_option
@options.verify_option
def command(
    head: Path,
    *,
    output: Path,
    weights: str | dict[str, str],
    quantize: str | None,
    overwrite: bool,
    verify: Verify,
) -> None:
    """Write HEAD, a file that fit-head wrote, and its base as one network.

    OUTPUT ends in .keras, .tflite (LiteRT), .onnx, or .xml (OpenVINO, with the weights in a .bin
    file beside it). The network takes images in [0, 1], at the size in the spec of the head, and
    returns calibrated probabilities, which are compared with those of HEAD before the file gets its
    name. Unlike predict, it cannot abstain.
    """
    from brainfeat.prediction.head_layers import require_network_file

    require_network_file(head)

    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.prediction.export import export_head

    bundle = HeadBundle.load(head, verify=verify)
    with options.ProgressLine("exporting"):
        exported = export_head(
            bundle,
            output,
            weights=weights,
            quantize=quantize,  # type: ignore[arg-type]
            overwrite=overwrite,
        )
    options.say(
        f"{output} written, {exported.n_bytes / 1e6:.1f} MB; on synthetic slices, its "
        f"probabilities differ by up to {exported.largest_difference:.1g} from those of {head}"
    )
    options.say(f"classes: {', '.join(bundle.class_names)}")
