"""``brainfeat bench``: how fast this machine is."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.spec import FLOATS, Precision
from brainfeat.cli import options
from brainfeat.text import align, count

if TYPE_CHECKING:
    from brainfeat.benchmark import Benchmark, Computing, Spread

# Name, median, least, most, ratio and remark.
Row = tuple[str, ...]
_BLANK: Row = ("",) * 6


EXAMPLES = """\b
Examples:
  brainfeat bench
  brainfeat bench --backbone mobilenet --repeats 3 --json
"""


@click.command("bench", short_help="Measure how fast this machine is.", epilog=EXAMPLES)
@options.backbone_option
@options.size_option
@click.option(
    "--crop",
    type=click.Choice(("none", "foreground")),
    default="none",
    show_default=True,
    help="Crop images before they are resized, as in extract.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(FLOATS),
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
    for line in [*align(list(_describe(result)), left=range(2)), *_list_timings(result)]:
        click.echo(line)


def _describe(result: "Benchmark") -> Iterator[tuple[str, str]]:
    processor = result.processor
    versions = [f"{name} {version}" for name, version in result.versions.items()]
    cost = f"{result.gflop_per_image:.3g} GFLOP per image"
    yield "processor", f"{processor['name']}, {count(processor['cores'], 'core')}"
    yield "", ", ".join(processor["features"]) or "unknown features"
    yield "gpu", ", ".join(result.devices) or "none that the backend can use"
    if result.bf16_peak_tflops is not None:
        yield "", f"{result.bf16_peak_tflops:g} TFLOP/s in dense bfloat16 (data sheet)"
    yield "engine", result.engine
    yield "backend", result.backend
    yield "versions", ", ".join(versions[:4])
    yield "", ", ".join(versions[4:])
    yield "base", f"{result.backbone} at {result.input_size} × {result.input_size} ({cost})"
    cropped = ", cropped to their foreground" if result.crop != "none" else ""
    yield "images", f"{result.images:,} ({result.data}{cropped})"
    yield "repeats", f"{result.repeats}, in {options.format_seconds(result.seconds)} in total"


def _list_timings(result: "Benchmark") -> list[str]:
    """Lay all timings out in one table, so that its columns are below one another."""
    return align(
        [
            _BLANK,
            _head("decode, images/s", "of 1 thread"),
            *(
                _row(count(threads, "thread"), part.images_per_second, part.ratio_to_one_thread)
                for threads, part in result.decode.items()
            ),
            _BLANK,
            _head("compute, images/s", "of float32"),
            *(
                _row(precision, part.images_per_second, part.ratio_to_float32, _performance(part))
                for precision, part in result.compute.items()
            ),
            _BLANK,
            _head("end to end, images/s", "of compute"),
            *(
                _row(precision, part.images_per_second, part.ratio_to_compute)
                for precision, part in result.end_to_end.items()
            ),
            _BLANK,
            _head("stage two, seconds", ""),
            *(
                _row(head, part.seconds, None, f"{part.epochs} epochs" if part.epochs else "")
                for head, part in result.stage_two.items()
            ),
        ],
        left=(0, 5),
    )


def _head(title: str, ratio_title: str) -> Row:
    return title, "median", "min", "max", ratio_title, ""


def _row(name: str, spread: "Spread", ratio: "Spread | None", remark: str = "") -> Row:
    return (
        f"  {name}",
        *(_round(value) for value in (spread.median, spread.min, spread.max)),
        "" if ratio is None else f"{ratio.median:.2f}",
        remark,
    )


def _performance(part: "Computing") -> str:
    remarks = [f"batch {part.batch_size:,}"]
    if part.tflops is not None:
        remarks.append(f"{part.tflops:.3g} TFLOP/s")
    if part.peak_fraction is not None:
        remarks.append(f"{part.peak_fraction:.1%} of bf16 peak")
    return ", ".join(remarks)


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.{1 if value >= 10 else 2}f}"
