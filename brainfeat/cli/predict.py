"""``brainfeat predict``: the class of each image, or the reason to abstain."""

import csv
import io
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import blocks, cases, options, patients
from brainfeat.cli.wording import translate
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE
from brainfeat.text import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from brainfeat.cli.heatmaps import HeatmapFolder
    from brainfeat.prediction.answers import Answer, Prediction, SliceSummary
    from brainfeat.prediction.explanation import Kind
    from brainfeat.prediction.joined import JoinedPredictor
    from brainfeat.prediction.predictor import Predictor

_SHOWN = 5
# The first columns of the table of predictions.
_COLUMNS = ("path", "frame", "decision", "forced")
# How the head has seen an image.
_SEEN = {
    "exact-duplicate": "the head was fitted or validated on this file",
    "copy": "the head was fitted or validated on a copy of this image",
}
_RATE = click.FloatRange(0, 1, min_open=True, max_open=True)

EXAMPLES = """\b
Examples:
  brainfeat predict head.h5 scan.png folder-of-slices
  brainfeat predict head.h5 series-folder --json --heatmap maps
  brainfeat predict head.h5 series --patient-key site.key -o found.csv
  brainfeat predict joined.h5 --input t1=scans/t1 --input flair=scans/flair
"""


@click.command("predict", short_help="Predict classes, or abstain.", epilog=EXAMPLES)
@click.argument("head", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path), metavar="[IMAGE_OR_FOLDER...]", nargs=-1)
@cases.input_options
@blocks.weights_option
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Compute in a higher precision than the head was fitted with.",
)
@options.engine_option
@click.option(
    "--coverage",
    type=_RATE,
    default=COVERAGE,
    show_default=True,
    help="Target coverage of the prediction set, per class.",
)
@click.option(
    "--false-alarm-rate",
    cls=options.RenamedOption,
    old="--false-refusals",  # codespell:ignore
    type=_RATE,
    default=FALSE_ALARM_RATE,
    show_default=True,
    help="Largest fraction of images like those of training that may be flagged as out of "
    "distribution.",
)
@click.option(
    "--force", is_flag=True, help="Print the most probable class where the head would abstain."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Also write a table.",
)
@click.option(
    "--heatmap",
    "heatmaps",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Draw into this new folder which regions each score comes from; needs the extra report.",
)
@click.option(
    "--heatmap-kind",
    type=click.Choice(["auto", "grad-cam", "occlusion", "attention"]),
    default="auto",
    show_default=True,
    help="How heat maps are computed: auto is Grad-CAM where the head allows it, else occlusion; "
    "attention draws the weights of the heads attention-pool and cbam.",
)
@click.option(
    "--sr",
    "report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="DCM",
    help="Also write a DICOM structured report of the volumes of one study, which names the "
    "patient; needs the extra dicom-out.",
)
@click.option(
    "--secondary-capture",
    "capture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="DCM",
    help="Also write a DICOM picture of a slice of each volume beside its heat map, which names "
    "the patient in its header; needs the extra dicom-out.",
)
@options.slices_option
@options.window_option
@options.orientation_option
@options.volume_option
@options.burned_in_option
@click.option(
    "--patient-key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with the key that slices hashed patients with: the hashes of patient and volume are "
    "part of the output, to be joined with its table.",
)
@options.keep_masks_option
@click.option(
    "--group-level",
    type=click.IntRange(min=1),
    metavar="N",
    help="For a head of fit-head --bag: folders of this level below the given ones are patients, 1 "
    "for those directly below.  [default: images in one folder are of one patient]",
)
@options.overwrite_option
@options.jobs_option
@options.verify_option
@options.json_option
def command(
    head: Path,
    images: tuple[Path, ...],
    *,
    inputs: tuple[tuple[str, Path], ...],
    input_table: Path | None,
    output: Path | None,
    heatmaps: Path | None,
    heatmap_kind: "Kind",
    report: Path | None,
    capture: Path | None,
    key_file: Path | None,
    overwrite: bool,
    n_jobs: int | None,
    verify: Verify,
    keep_masks: bool,
    group_level: int | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Predict the classes of images, of volumes and of all such files in folders.

    HEAD is a file that fit-head wrote. Images are JPEG, PNG, TIFF, BMP, GIF and WebP files. Volumes
    are DICOM series and NIfTI, MGH and MATLAB files, cut as the head's training volumes were; they
    are predicted as a whole and slice by slice; a head of fit-head --bag predicts each patient from
    all of its images. The head abstains where an image is out of
    distribution or where its prediction set does not have exactly one class. A prediction is not a
    diagnosis.

    A head that was fitted on several modalities predicts patients, from what --input or
    --input-table gives of each modality.
    """
    from brainfeat.cli.dicom_files import DicomFiles
    from brainfeat.cli.heatmaps import HeatmapFolder, check_folder
    from brainfeat.errors import BrainfeatError
    from brainfeat.files import check_output
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.prediction.images import count_images
    from brainfeat.prediction.inputs import take_inputs
    from brainfeat.prediction.joined import JoinedPredictor
    from brainfeat.prediction.patients import choose_belonging
    from brainfeat.prediction.predictor import Predictor
    from brainfeat.readers.held import list_given
    from brainfeat.tables.csv_cells import has_header
    from brainfeat.tables.masks import BY_NAME, BY_VALUES, describe_masks
    from brainfeat.tables.pseudonyms import read_patient_key

    if output is not None:
        check_output(
            output,
            overwrite=overwrite,
            kind="a table of predictions that brainfeat wrote",
            recognise=lambda found: has_header(found, _COLUMNS),
            inputs=(head, *images, *cases.list_paths(inputs, input_table, key_file)),
        )
    if heatmaps is not None:
        check_folder(heatmaps, overwrite=overwrite, inputs=images)
    results = DicomFiles(report=report, capture=capture, overwrite=overwrite)
    results.check_files(
        output, inputs=(head, *images, *cases.list_paths(inputs, input_table, key_file))
    )
    key = None if key_file is None else read_patient_key(key_file)
    shown = {"--heatmap": heatmaps, "--sr": report, "--secondary-capture": capture}
    if cases.are_given(inputs, input_table, images=images, outputs=shown):
        if group_level is not None:
            raise click.UsageError("--group-level is of images; --input has folders of patients")
        joined = JoinedPredictor(HeadBundle.load(head, verify=verify), patient_key=key, **chosen)
        parts = cases.find(joined, inputs, input_table, keep_masks=keep_masks)
        with options.ProgressLine("predicting", "images") as progress:
            people = joined.predict_parts(parts, n_jobs=n_jobs, progress=progress)
        _report(people, joined, output=output, hashed=key is not None, as_json=as_json)
        return
    listed = list_given(images)
    given, masks = take_inputs(listed, keep_masks=keep_masks)
    if masks:
        warning = describe_masks(masks, "file", f"{BY_NAME}, or {BY_VALUES}")
        options.say(f"warning: {translate(warning)}", err=True)
    if not any(given):
        # Without the path, which can contain a patient's name.
        raise BrainfeatError("no images and no volumes in what was given; name another")
    bundle = cases.require_one_modality(HeadBundle.load(head, verify=verify))
    results.check_inputs(given, bundle)
    belonging = choose_belonging(bundle, given, listed, group_level=group_level)
    predictor = Predictor(bundle, n_images=count_images(given), patient_key=key, **chosen)
    drawer = nullcontext() if heatmaps is None else HeatmapFolder(heatmaps, predictor, heatmap_kind)
    found: list[Prediction] = []
    with options.ProgressLine("predicting", "images") as progress, drawer as drawing:
        answers = predictor.predict_inputs(
            given,
            belonging=belonging,
            keep_images=drawing is not None or capture is not None,
            n_jobs=n_jobs,
            progress=progress,
        )
        volumes = results.collect(_note(answers, found, drawing))
    patients.explain(bundle, found, by_folder=bool(given.images) and group_level is None)
    results.write(volumes, predictor)
    _report(found, predictor, output=output, hashed=key is not None, as_json=as_json)


def _report(
    answers: "Sequence[Prediction]",
    predictor: "Predictor | JoinedPredictor",
    *,
    output: Path | None,
    hashed: bool,
    as_json: bool,
) -> None:
    """Write and print predictions; the exit code is 1 where nothing could be read."""
    found = [_name_options(answer) for answer in answers]
    if output is not None:
        options.write_text(output, _to_csv(found, predictor.bundle.class_names, hashed=hashed))
        options.say(f"{output.name} written, {count(len(found), 'row')}", err=True)
    if as_json:
        options.print_json(_to_documents(found, predictor))
    else:
        _show(found, predictor)
    if all(answer.error is not None for answer in found):
        sys.exit(1)


def _note(
    answers: "Iterable[Answer]", found: "list[Prediction]", drawing: "HeatmapFolder | None"
) -> "Iterator[Answer]":
    """Pass answers on; each is noted and, where it is asked for, drawn."""
    for answer in answers:
        found.append(answer.prediction)
        if drawing is not None:
            drawing.add(answer)
        yield answer


def _name_options(answer: "Prediction") -> "Prediction":
    """Name options in the reason why an image cannot be read."""
    return answer if answer.error is None else replace(answer, error=translate(answer.error))


def _to_documents(
    found: "Sequence[Prediction]", predictor: "Predictor | JoinedPredictor"
) -> list[dict[str, Any]]:
    from brainfeat.prediction.answers import NOTICE

    origin = {
        "spec": predictor.bundle.spec.fingerprint,
        "bundle": predictor.bundle.content_sha256,
        "precision": predictor.precision,
        "engine": predictor.engine,
        "notice": NOTICE,
    }
    return [{**answer.to_dict(), **origin} for answer in found]


def _show(found: "Sequence[Prediction]", predictor: "Predictor | JoinedPredictor") -> None:
    from brainfeat.prediction.answers import NOTICE
    from brainfeat.prediction.description import describe

    for answer in found:
        if answer.frame is not None:
            continue
        options.say(f"{name_answer(answer)}: {describe(answer)}")
        if answer.seen is not None:
            options.say(f"  {_SEEN[answer.seen]}; this says nothing about new images")
        if answer.slices is not None:
            describe_summary = patients.describe if answer.slices.pooling else _describe_slices
            options.say(f"  {describe_summary(answer.slices)}")
        if answer.missing:
            options.say(
                f"  without {', '.join(answer.missing)}, whose features are means of the fit"
            )
    fitted = ", ".join(dict.fromkeys(spec.precision for spec in predictor.bundle.specs))
    if predictor.precision != fitted:
        click.echo(f"Computed in {predictor.precision}; the head was fitted in {fitted}.")
    if predictor.bundle.blocks is not None:
        from brainfeat.report.wording import describe_passes

        click.echo(f"This took {describe_passes(predictor.bundle)}.")
    click.echo(NOTICE)


def name_answer(answer: "Prediction") -> str:
    """Name an image or a volume, with the hashes of its patient and of itself where it has them."""
    hashes = {"group": answer.group, "volume": answer.volume}
    known = ", ".join(f"{kind} {digits}" for kind, digits in hashes.items() if digits)
    return f"{answer.path} ({known})" if known else answer.path


def _describe_slices(slices: "SliceSummary") -> str:
    """Describe how many slices have each decision, and the frames of each predicted class."""
    parts = []
    for name, number in sorted(slices.decisions.items(), key=lambda entry: -entry[1]):
        frames = slices.carried_by.get(name, ())
        which = ", ".join(map(str, frames[:_SHOWN])) + (" …" if len(frames) > _SHOWN else "")
        parts.append(f"{number:,} {name}{f' (no. {which})' if which else ''}")
    if slices.seen:
        parts.append(f"{slices.seen:,} that the head was fitted or validated on, or on a copy")
    return f"{count(slices.n, 'slice')}: {'; '.join(parts)}"


def _to_csv(found: "Sequence[Prediction]", class_names: "Sequence[str]", *, hashed: bool) -> str:
    from brainfeat.tables.csv_cells import csv_cell

    text, is_joined = io.StringIO(), any(answer.missing is not None for answer in found)
    writer = csv.writer(text, lineterminator="\n")
    probabilities = [csv_cell(f"probability {name}") for name in class_names]
    writer.writerow(
        [
            *(*_COLUMNS, *probabilities),
            *("prediction_set", "score", "threshold", "flagged", "seen", "error"),
            *(("group", "volume") if hashed else ()),
            *(("missing",) if is_joined else ()),
        ]
    )
    for answer in found:
        ood = answer.out_of_distribution
        writer.writerow(
            [
                csv_cell(answer.path),
                "" if answer.frame is None else answer.frame,
                csv_cell(answer.decision or ""),
                "" if answer.error else answer.forced,
                *(answer.probabilities.get(name, "") for name in class_names),
                csv_cell(" | ".join(answer.prediction_set or ())),
                *(("", "", "") if ood is None else (ood.score, ood.threshold, ood.flagged)),
                answer.seen or "",
                csv_cell(answer.error or ""),
                *((answer.group or "", answer.volume or "") if hashed else ()),
                *((csv_cell(" | ".join(answer.missing or ())),) if is_joined else ()),
            ]
        )
    return text.getvalue()
