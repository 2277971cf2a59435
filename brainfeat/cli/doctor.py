"""``brainfeat doctor``: what brainfeat finds on this machine."""

from typing import Any

import click

from brainfeat.cli import options
from brainfeat.text import WIDTH, align, count, wrap

# Columns to the right of the names.
_WIDTH = WIDTH - len("precision  ")

EXAMPLES = """\b
Examples:
  brainfeat doctor
  brainfeat doctor --json
"""


@click.command("doctor", short_help="Show what this machine offers.", epilog=EXAMPLES)
@options.json_option
def command(*, as_json: bool) -> None:
    """Show what this machine offers: processor, precision, GPUs, versions, weights."""
    document = _examine()
    if as_json:
        options.print_json(document)
        return
    weights = [(f"  {name}", found) for name, found in document["weights"].items()]
    for line in [
        *align(_describe(document), left=range(2)),
        "ImageNet weights",
        *align(weights, left=range(2)),
    ]:
        click.echo(line)


def _describe(document: dict[str, Any]) -> list[tuple[str, str]]:
    processor = document["processor"]
    precisions = ", ".join(document["precision"])
    versions = wrap(
        ", ".join(f"{name} {version}" for name, version in document["versions"].items()), _WIDTH
    )
    return [
        ("processor", f"{processor['name']}, {count(processor['cores'], 'core')}"),
        ("", ", ".join(processor["features"]) or "features unknown"),
        ("engine", f"auto chooses {document['auto_engine']}"),
        ("precision", f"{precisions}; auto chooses {document['auto_precision']} for vgg16"),
        ("gpu", ", ".join(document["gpus"]) or "none that the backend can use"),
        ("backend", document["backend"]),
        *zip(["versions", *[""] * (len(versions) - 1)], versions, strict=True),
    ]


def _examine() -> dict[str, Any]:
    from brainfeat import runtime
    from brainfeat.extraction.architectures import BACKBONES
    from brainfeat.extraction.engines import choose_engine, choose_precision
    from brainfeat.extraction.weights import local_imagenet_file

    processor = runtime.processor()
    engine = choose_engine("auto", device="auto", precision="auto")
    native = {"avx512_bf16", "amx_bf16"} & set(processor["features"])
    return {
        "processor": processor,
        "precision": ["float32", *(["bfloat16 (native)"] if native else [])],
        "auto_engine": engine,
        "auto_precision": choose_precision(engine, device="auto", name="vgg16", input_size=224),
        "gpus": runtime.accelerators(),
        "backend": runtime.import_keras().config.backend(),
        "versions": runtime.versions(),
        "weights": {
            name: "found"
            if local_imagenet_file(name).is_file()
            else "not found; downloaded when used"
            for name in BACKBONES
        },
    }
