"""``brainfeat predict``: what a head says of images, or why it says nothing."""

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import options
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE
from brainfeat.text import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from brainfeat.prediction.answers import Prediction
    from brainfeat.prediction.predictor import Predictor
    from brainfeat.readers.series import Series

_MAPS_AT_ONCE = 16
_SHOWN = 5
_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command("predict", short_help="Tell what a head says of images, or why it does not.")
@click.argument("head", type=click.Path(path_type=Path))
@click.argument(
    "images", type=click.Path(path_type=Path), metavar="IMAGE_OR_FOLDER...", nargs=-1, required=True
)
@options.weights_option
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Compute in a higher precision than the head was fitted with.",
)
@click.option(
    "--coverage",
    type=_SHARE,
    default=COVERAGE,
    show_default=True,
    help="Share of the images of each class whose class shall be among those not ruled out.",
)
@click.option(
    "--false-refusals",
    type=_SHARE,
    default=FALSE_ALARM_RATE,
    show_default=True,
    help="Share of images like those of training that may be refused as out of scope.",
)
@click.option("--force", is_flag=True, help="Name a class though there is reason for none.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="CSV",
    help="Write a table, too.",
)
@click.option(
    "--heatmap",
    "heatmaps",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Draw into this new folder where each score comes from; needs the extra report.",
)
@options.slices_option
@options.window_option
@options.burned_in_option
@options.overwrite_option
@options.jobs_option
@options.verify_option
@options.json_option
def command(
    head: Path,
    images: tuple[Path, ...],
    *,
    weights: str,
    precision: str | None,
    coverage: float,
    false_refusals: float,
    force: bool,
    output: Path | None,
    heatmaps: Path | None,
    slices: str | None,
    window: str | None,
    allow_burned_in: bool,
    overwrite: bool,
    n_jobs: int | None,
    verify: Verify,
    as_json: bool,
) -> None:
    """Tell what HEAD, a file that fit-head wrote, says of images, of volumes and of folders.

    Images are JPEG and PNG files; volumes are NIfTI files and DICOM series, whose slices are told
    one by one and then as a whole. It abstains where an image is unlike all that the head was
    fitted on, or where several classes cannot be ruled out. This is no diagnosis.
    """
    from brainfeat.errors import BrainfeatError
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.prediction.answers import NOTICE, tell_unreadable
    from brainfeat.prediction.predictor import Predictor, list_images
    from brainfeat.readers import read_image
    from brainfeat.readers.series import find_series

    if output is not None:
        options.check_output(output, overwrite=overwrite)
    if heatmaps is not None and heatmaps.exists() and not overwrite:
        raise BrainfeatError(f"{heatmaps} exists; name another folder or pass --overwrite")
    files = list_images(images)
    series, unreadable = find_series(images)
    if not files and not series and not unreadable:
        # No path: one can hold a patient's name.
        raise BrainfeatError("there are no JPEG, PNG, DICOM or NIfTI files in what was given")
    predictor = Predictor(
        HeadBundle.load(head, verify=verify),
        weights=weights,
        precision=precision,  # type: ignore[arg-type]
        coverage=coverage,
        false_refusals=false_refusals,
        force=force,
        n_images=None if series else len(files),
        slices=slices,
        window=window,
        allow_burned_in=allow_burned_in,
    )
    with options.ProgressLine("predicting", "images") as progress:
        found = predictor.predict(files, n_jobs=n_jobs, progress=progress)
    if heatmaps is not None:
        names = [file.stem for file in files]
        _draw_heatmaps(predictor, found, lambda place: read_image(files[place]), heatmaps, names)
    found += [tell_unreadable(entry.name, entry.reason) for entry in unreadable]
    for entry in series:
        found += _predict_series(predictor, entry, heatmaps)
    if output is not None:
        options.write_text(output, _to_csv(found, predictor.bundle.class_names))
    if as_json:
        digests = {
            "spec": predictor.bundle.spec.fingerprint,
            "bundle": predictor.bundle.content_sha256,
            "precision": predictor.precision,
            "notice": NOTICE,
        }
        options.print_json([{**answer.to_dict(), **digests} for answer in found])
    else:
        _show(found, predictor)
    if all(answer.error is not None for answer in found):
        sys.exit(1)


def _predict_series(
    predictor: "Predictor", series: "Series", heatmaps: Path | None
) -> "list[Prediction]":
    from brainfeat.errors import ImageReadError
    from brainfeat.prediction.answers import tell_unreadable
    from brainfeat.readers.volumes import grey_image

    try:
        cut = predictor.cut(series)
    except ImageReadError as error:
        return [tell_unreadable(series.name, error.reason)]
    with options.ProgressLine(f"predicting {series.name}", "slices") as progress:
        found = predictor.predict_slices(cut, name=series.name, progress=progress)
    if heatmaps is not None:
        names = [f"{series.name.replace(', ', '-').replace(' ', '-')}-{s.frame:04}" for s in cut]
        _draw_heatmaps(
            predictor, found[1:], lambda place: grey_image(cut[place].pixels), heatmaps, names
        )
    return found


def _draw_heatmaps(
    predictor: "Predictor",
    found: "Sequence[Prediction]",
    read: "Callable[[int], NDArray[np.float32]]",
    folder: Path,
    file_names: "Sequence[str]",
) -> None:
    """Draw a map for each image that was read, of the class that is named or else the likeliest."""
    import numpy as np

    from brainfeat.extraction.preprocessing import preprocess_image
    from brainfeat.prediction.explanation import explain
    from brainfeat.report.heatmaps import save_heatmap

    folder.mkdir(parents=True, exist_ok=True)
    spec, names = predictor.bundle.spec, predictor.bundle.class_names
    known = [place for place, answer in enumerate(found) if answer.error is None]
    with options.ProgressLine("drawing", "heat maps") as progress:
        for start in range(0, len(known), _MAPS_AT_ONCE):
            places = known[start : start + _MAPS_AT_ONCE]
            pixels = [read(place) for place in places]
            shares = [found[place].probabilities for place in places]
            called = [
                answer if (answer := found[place].decision) in names else max(p, key=p.__getitem__)
                for place, p in zip(places, shares, strict=True)
            ]
            maps = explain(
                predictor.bundle,
                np.stack([preprocess_image(p, size=spec.input_size) for p in pixels]),
                backbone=predictor.backbone,
                targets=[names.index(str(name)) for name in called],
            ).maps
            for place, image, heat, name, p in zip(
                places, pixels, maps, called, shares, strict=True
            ):
                path = folder / f"{place + 1:05}-{file_names[place]}.png"
                save_heatmap(image, heat, path, title=str(name), probability=p[str(name)])
            progress(start + len(places), len(known))


def _show(found: "Sequence[Prediction]", predictor: "Predictor") -> None:
    from brainfeat.prediction.answers import NOTICE

    for answer in found:
        if answer.frame is not None:
            continue
        options.say(f"{answer.path}: {describe(answer)}")
        if answer.slices is not None:
            options.say(f"  {_describe_slices(answer.slices)}")
    spec = predictor.bundle.spec
    if predictor.precision != spec.precision:
        click.echo(f"Computed in {predictor.precision}; the head was fitted in {spec.precision}.")
    click.echo(NOTICE)


def describe(answer: "Prediction") -> str:
    """Say in one line what the answer is, how sure, and why not surer."""
    from brainfeat.prediction.answers import OUT_OF_SCOPE, UNCERTAIN

    if answer.error is not None:
        return f"cannot be read: {answer.error}"
    ranked = sorted(answer.probabilities.items(), key=lambda entry: -entry[1])
    if answer.decision == OUT_OF_SCOPE:
        return f"out of scope, {_explain_scope(answer)}"
    if answer.decision == UNCERTAIN:
        return _explain_doubt(answer)
    name, share = str(answer.decision), answer.probabilities[str(answer.decision)]
    if answer.forced:
        scope = answer.out_of_scope
        why = (
            f"out of scope, {_explain_scope(answer)}"
            if scope is not None and scope["refused"]
            else _explain_doubt(answer)
        )
        return f"{name} ({share:.2f}), FORCED: {why}"
    if answer.set is None:
        return f"{name} ({share:.2f}); this head cannot say what it rules out"
    return f"{name} ({share:.2f}); next {ranked[1][0]} ({ranked[1][1]:.2f}), ruled out"


def _describe_slices(slices: dict[str, Any]) -> str:
    """Say how many slices were called what, and which carry each answer."""
    told = []
    for name, number in sorted(slices["decisions"].items(), key=lambda entry: -entry[1]):
        frames = slices["carried_by"].get(name, [])
        which = ", ".join(map(str, frames[:_SHOWN])) + (" …" if len(frames) > _SHOWN else "")
        told.append(f"{number:,} {name}{f' (no. {which})' if which else ''}")
    return f"{count(slices['n'], 'slice')}: {'; '.join(told)}"


def _explain_scope(answer: "Prediction") -> str:
    scope = answer.out_of_scope or {}
    return f"unlike the training images: {scope['score']:.1f}, above {scope['threshold']:.1f}"


def _explain_doubt(answer: "Prediction") -> str:
    shares = [f"{name} ({answer.probabilities[name]:.2f})" for name in answer.set or []]
    if not shares:
        return "uncertain: no class is likely enough"
    if len(shares) == 1:
        return f"uncertain: only {shares[0]} is not ruled out, and another is likelier"
    return f"uncertain between {', '.join(shares[:-1])} and {shares[-1]}"


def _to_csv(found: "Sequence[Prediction]", class_names: "Sequence[str]") -> str:
    from brainfeat.tables.csv_cells import csv_cell

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shares = [csv_cell(f"probability {name}") for name in class_names]
    writer.writerow(
        [
            "path",
            "frame",
            "decision",
            "forced",
            *shares,
            "set",
            "score",
            "threshold",
            "refused",
            "error",
        ]
    )
    for answer in found:
        scope = answer.out_of_scope or {}
        writer.writerow(
            [
                csv_cell(answer.path),
                "" if answer.frame is None else answer.frame,
                csv_cell(answer.decision or ""),
                "" if answer.error else answer.forced,
                *(answer.probabilities.get(name, "") for name in class_names),
                csv_cell(" | ".join(answer.set or [])),
                *(scope.get(name, "") for name in ("score", "threshold", "refused")),
                csv_cell(answer.error or ""),
            ]
        )
    return text.getvalue()
