"""``brainfeat bench``: how fast this machine is."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.spec import PRECISIONS, Precision
from brainfeat.cli import options

if TYPE_CHECKING:
    from brainfeat.benchmark import Benchmark, Computing, Spread

Row = tuple[str, "Spread", "Spread | None", str]


EXAMPLES = """\b
Examples:
  brainfeat bench
  brainfeat bench --backbone mobilenet --repeats 3 --json
"""


@click.command("bench", short_help="Measure how fast this machine is.", epilog=EXAMPLES)
@options.backbone_option
@options.size_option
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="Precision to measure in addition to float32; may be repeated.  [default: all for which "
    "the processor or the GPU has instructions]",
)
@click.option(
    "--batch-size",
    type=options.AutoInteger(),
    default="auto",
    show_default=True,
    help="Number of images in a batch; auto takes the batch size of extract.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Images, as in extract.  [default: synthetic JPEG slices of 224 x 224 pixels]",
)
@click.option(
    "--number",
    type=click.IntRange(min=1),
    help="Number of images to use.  [default: 64, or 2,048 with a GPU]",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of times that each part is measured.",
)
@options.jobs_option
@options.random_state_option
@options.json_option
def command(
    data: Path | None,
    *,
    precisions: tuple[Precision, ...],
    as_json: bool,
    **chosen: Any,
) -> None:
    """Measure how fast this machine is.

    Measures the decoding of images, the base alone in each precision, stage one as a whole, and the
    fitting of heads. The base has random weights, which are as fast as any; nothing is downloaded
    and nothing is kept.
    """
    from brainfeat.benchmark import run_benchmark

    result = run_benchmark(
        data,
        precisions=precisions or None,
        progress=lambda line: click.echo(line, err=True),
        **chosen,
    )
    if as_json:
        options.print_json(result.to_dict())
        return
    for line in [*_head(result), *_table(result)]:
        click.echo(line)


def _head(result: "Benchmark") -> Iterable[str]:
    processor = result.processor
    versions = [f"{name} {version}" for name, version in result.versions.items()]
    counted = result.gflop_per_image
    cost = "" if counted is None else f" ({counted:.3g} GFLOP per image)"
    yield f"processor  {processor['name']}, {options.count(processor['cores'], 'core')}"
    yield f"           {', '.join(processor['features']) or 'unknown features'}"
    yield f"gpu        {', '.join(result.devices) or 'none that the backend can use'}"
    if result.bf16_peak_tflops is not None:
        yield f"           {result.bf16_peak_tflops:g} TFLOP/s in dense bfloat16 (data sheet)"
    yield f"backend    {result.backend}"
    yield f"versions   {', '.join(versions[:4])}"
    yield f"           {', '.join(versions[4:])}"
    yield f"base       {result.backbone} at {result.input_size} × {result.input_size}{cost}"
    yield f"images     {result.images:,} ({result.data})"
    yield f"repeats    {result.repeats}, in {options.format_seconds(result.seconds)} in total"


def _table(result: "Benchmark") -> Iterable[str]:
    yield from _section(
        "decode, images/s",
        "of 1 thread",
        [
            (options.count(threads, "thread"), part.images_per_second, part.ratio_to_one_thread, "")
            for threads, part in result.decode.items()
        ],
    )
    yield from _section(
        "compute, images/s",
        "of float32",
        [
            (
                precision,
                part.images_per_second,
                part.ratio_to_float32,
                _performance(part),
            )
            for precision, part in result.compute.items()
        ],
    )
    yield from _section(
        "end to end, images/s",
        "of compute",
        [
            (precision, part.images_per_second, part.ratio_to_compute, "")
            for precision, part in result.end_to_end.items()
        ],
    )
    yield from _section(
        "stage two, seconds",
        "",
        [
            (head, part.seconds, None, f"{part.epochs} epochs" if part.epochs else "")
            for head, part in result.stage_two.items()
        ],
    )


def _performance(part: "Computing") -> str:
    remarks = [f"batch {part.batch_size:,}"]
    if part.tflops is not None:
        remarks.append(f"{part.tflops:.3g} TFLOP/s")
    if part.peak_fraction is not None:
        remarks.append(f"{part.peak_fraction:.1%} of bf16 peak")
    return ", ".join(remarks)


def _section(title: str, ratio_title: str, rows: Iterable[Row]) -> Iterable[str]:
    yield ""
    yield f"{title:<22}{'median':>10}{'min':>10}{'max':>10}{ratio_title:>14}".rstrip()
    for name, spread, ratio, remark in rows:
        numbers = "".join(f"{_round(x):>10}" for x in (spread.median, spread.min, spread.max))
        gain = "" if ratio is None else f"{ratio.median:.2f}"
        yield f"  {name:<20}{numbers}{gain:>14}  {remark}".rstrip()


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.{1 if value >= 10 else 2}f}"
