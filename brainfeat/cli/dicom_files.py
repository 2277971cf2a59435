"""The DICOM files of ``brainfeat predict --sr`` and ``--secondary-capture``."""

from collections import deque
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from brainfeat.cli import options
from brainfeat.files import check_output, is_same_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.prediction.answers import Answer
    from brainfeat.prediction.dicom_results import PredictedVolume
    from brainfeat.prediction.predictor import Predictor
    from brainfeat.readers.series import Inputs


@dataclass(frozen=True, kw_only=True)
class DicomFiles:
    """Which DICOM files are to be written.

    Attributes
    ----------
    report, capture : Path or None
    overwrite : bool
    """

    report: Path | None
    capture: Path | None
    overwrite: bool

    @property
    def wanted(self) -> bool:
        """Whether there is any."""
        return self.report is not None or self.capture is not None

    def check_files(self, output: Path | None, *, inputs: "Sequence[Path]") -> None:
        """Refuse files that must not be written, or that are one with each other or the table.

        Raises
        ------
        UsageError, BrainfeatError
        """
        if not self.wanted:
            return
        from brainfeat.prediction.dicom_results import capture, document

        named = {"--output": output, "--sr": self.report, "--secondary-capture": self.capture}
        for (one, first), (other, second) in combinations(named.items(), 2):
            if first is not None and second is not None and is_same_file(first, second):
                raise click.UsageError(f"{one} and {other} name the same file; name two")
        for path, module, recognise in (
            (self.report, document, document.is_report),
            (self.capture, capture, capture.is_capture),
        ):
            if path is not None:
                check_output(
                    path,
                    overwrite=self.overwrite,
                    kind=module.KIND,
                    recognise=recognise,
                    inputs=inputs,
                )

    def check_inputs(self, inputs: "Inputs", bundle: "HeadBundle") -> None:
        """Refuse what no DICOM file can be written of, and heads that none can be written by.

        Raises
        ------
        BrainfeatError
        """
        if self.wanted:
            from brainfeat.prediction.dicom_results import check_head, check_inputs

            check_head(bundle)
            check_inputs(inputs)

    def collect(self, answers: "Iterable[Answer]") -> "list[PredictedVolume]":
        """Take all answers, and return the volumes where a file is to be written."""
        if not self.wanted:
            deque(answers, maxlen=0)
            return []
        from brainfeat.prediction.dicom_results import collect_volumes

        return collect_volumes(answers)

    def write(self, volumes: "Sequence[PredictedVolume]", predictor: "Predictor") -> None:
        """Write the files, unless no volume could be read.

        Raises
        ------
        BrainfeatError
        """
        if not self.wanted:
            return
        from brainfeat.prediction.dicom_results import write_results

        if all(volume.prediction.error is not None for volume in volumes):
            options.say("warning: no volume could be read; no DICOM file was written", err=True)
            return
        for path in write_results(
            volumes,
            report=self.report,
            capture=self.capture,
            predictor=predictor,
            overwrite=self.overwrite,
        ):
            options.say(f"{path.name} written; it names the patient", err=True)
