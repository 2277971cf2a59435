"""The DICOM results of a study, which are written together."""

from collections.abc import Sequence
from pathlib import Path

from brainfeat.prediction.dicom_results.capture import encode_secondary_capture
from brainfeat.prediction.dicom_results.document import encode_sr
from brainfeat.prediction.dicom_results.objects import save
from brainfeat.prediction.dicom_results.volumes import PredictedVolume
from brainfeat.prediction.predictor import Predictor


def write_results(
    volumes: Sequence[PredictedVolume],
    *,
    report: Path | None,
    capture: Path | None,
    predictor: Predictor,
    overwrite: bool = False,
) -> list[Path]:
    """Write a structured report, a secondary capture, or both: both appear, or neither.

    Parameters
    ----------
    volumes : sequence of PredictedVolume
        As for `write_sr`, and with their images for a capture.
    report, capture : Path or None
        The files.
    predictor, overwrite
        As for `write_sr`.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    BrainfeatError
        As by `write_sr` and `write_secondary_capture`.
    """
    contents = {
        path: encode(volumes, path, predictor=predictor, overwrite=overwrite)
        for path, encode in ((report, encode_sr), (capture, encode_secondary_capture))
        if path is not None
    }
    save(contents)
    return [*contents]
