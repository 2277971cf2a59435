"""The heat maps of ``brainfeat predict --heatmap``, a file for each image that was read."""

import re
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from brainfeat import files
from brainfeat.cli import options
from brainfeat.errors import BrainfeatError
from brainfeat.files import is_same_file, is_so
from brainfeat.text import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainfeat.prediction.answers import Answer, Prediction
    from brainfeat.prediction.explanation import Kind
    from brainfeat.prediction.predictor import Predictor

# Images whose maps are computed at once.
_AT_ONCE = 16
_FILE_NAME = re.compile(r"\d{5,}-.*\.png")


class HeatmapFolder:
    """A folder that takes answers with their images, and draws them.

    Parameters
    ----------
    folder : Path
    predictor : Predictor
        The answers are its own.
    method : str
        As of :func:`brainfeat.prediction.explanation.explain`.
    """

    def __init__(self, folder: Path, predictor: "Predictor", method: "Kind" = "auto") -> None:
        from brainfeat.prediction.explanation import check_method, require_images

        require_images(predictor.bundle)
        check_method(method, predictor.bundle, predictor.backbone)
        self._folder, self._predictor, self._method = folder, predictor, method
        self._waiting: list[tuple[str, Answer]] = []
        self._number = self._drawn = 0

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BrainfeatError(
                f"{self._folder} cannot be created ({error.strerror}); name another folder"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._draw()
            drawn = count(self._drawn, "heat map")
            options.say(f"{drawn} written into {self._folder.name}", err=True)

    def add(self, answer: "Answer") -> None:
        """Take an answer; images are numbered from 1, and so are the slices of each volume."""
        prediction = answer.prediction
        if prediction.slices is not None:
            self._number = 0
            return
        self._number += 1
        if answer.image is not None:
            self._waiting.append((f"{self._number:05}-{_name_file(prediction)}.png", answer))
        if len(self._waiting) == _AT_ONCE:
            self._draw()

    def _draw(self) -> None:
        import numpy as np

        from brainfeat.extraction.cropping import find_box
        from brainfeat.prediction.explanation import explain
        from brainfeat.report.heatmaps import ATTENTION_CAPTION, CAPTION, save_heatmap

        if not self._waiting:
            return
        bundle = self._predictor.bundle
        titles = [_choose_class(answer.prediction) for _, answer in self._waiting]
        found = explain(
            bundle,
            np.stack([answer.image for _, answer in self._waiting if answer.image is not None]),
            backbone=self._predictor.backbone,
            targets=[bundle.class_names.index(title) for title in titles],
            method=self._method,
        )
        caption = ATTENTION_CAPTION if found.method == "attention" else CAPTION
        for (name, answer), heat, title in zip(self._waiting, found.maps, titles, strict=True):
            if answer.pixels is not None:
                save_heatmap(
                    answer.pixels,
                    heat,
                    self._folder / name,
                    title=title,
                    probability=answer.prediction.probabilities[title],
                    box=find_box(answer.pixels, bundle.specs[0].crop),
                    caption=caption,
                )
                self._drawn += 1
        self._waiting.clear()


def check_folder(folder: Path, *, overwrite: bool, inputs: "Sequence[Path]") -> None:
    """Refuse a folder that cannot be written into, or that has anything else than heat maps.

    Raises
    ------
    BrainfeatError
    """
    if not (is_so(folder.exists) or folder.is_symlink()):
        files.check_folder(next(parent for parent in folder.parents if is_so(parent.exists)))
        return
    if not is_so(folder.is_dir):
        raise BrainfeatError(f"{folder} is not a folder; name another one")
    if any(is_same_file(folder, one) or is_same_file(folder, one.parent) for one in inputs):
        raise BrainfeatError(f"{folder} has images that this run reads; name another folder")
    if not overwrite:
        raise BrainfeatError(f"{folder} exists; name another folder or pass --overwrite")
    if others := [path.name for path in folder.iterdir() if not _FILE_NAME.fullmatch(path.name)]:
        raise BrainfeatError(
            f"{folder} has other files than heat maps, such as {others[0]}; name another folder"
        )


def _choose_class(prediction: "Prediction") -> str:
    """Return the predicted class, or the most probable one where the head abstains."""
    p = prediction.probabilities
    return str(prediction.decision) if prediction.decision in p else max(p, key=p.__getitem__)


def _name_file(prediction: "Prediction") -> str:
    if prediction.frame is None:
        return Path(prediction.path).stem
    volume = prediction.path.replace(", ", "-").replace(" ", "-")
    return f"{volume}-{prediction.frame:04}"
