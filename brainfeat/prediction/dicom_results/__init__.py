"""Predictions as DICOM: a structured report, and a picture of the heat maps.

Both are of one study and carry its patient, unlike every other output: only the named file does,
and nothing that is printed or raised. highdicom writes them (the extra ``dicom-out``).
"""

from brainfeat.prediction.dicom_results.capture import is_capture, write_secondary_capture
from brainfeat.prediction.dicom_results.document import is_report, write_sr
from brainfeat.prediction.dicom_results.study import check_head, check_inputs
from brainfeat.prediction.dicom_results.volumes import PredictedVolume, collect_volumes
from brainfeat.prediction.dicom_results.writing import write_results

__all__ = [
    "PredictedVolume",
    "check_head",
    "check_inputs",
    "collect_volumes",
    "is_capture",
    "is_report",
    "write_results",
    "write_secondary_capture",
    "write_sr",
]
