"""``brainfeat doctor``: what brainfeat finds on this machine."""

from typing import Any

import click

from brainfeat.cli import options


@click.command("doctor", short_help="Show what this machine offers.")
@options.json_option
def command(*, as_json: bool) -> None:
    """Show what this machine offers: processor, precision, GPUs, versions, weights."""
    document = _examine()
    if as_json:
        options.print_json(document)
        return
    processor = document["processor"]
    click.echo(f"processor   {processor['name']}, {options.count(processor['cores'], 'core')}")
    click.echo(f"            {', '.join(processor['features']) or 'features unknown'}")
    precisions = ", ".join(document["precision"])
    click.echo(f"precision   {precisions}; auto chooses {document['auto_precision']}")
    click.echo(f"gpu         {', '.join(document['gpus']) or 'none that the backend can use'}")
    click.echo(f"backend     {document['backend']}")
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    click.echo(f"versions    {versions}")
    click.echo("ImageNet weights")
    for name, found in document["weights"].items():
        click.echo(f"  {name:<15} {found}")


def _examine() -> dict[str, Any]:
    from brainfeat import runtime
    from brainfeat.extraction.architectures import BACKBONES
    from brainfeat.extraction.weights import local_imagenet_file

    processor = runtime.processor()
    native = {"avx512_bf16", "amx_bf16"} & set(processor["features"])
    return {
        "processor": processor,
        "precision": ["float32", *(["bfloat16 (native)"] if native else [])],
        "auto_precision": runtime.choose_precision(),
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
