"""Synthetic slices as images, and folders of them with a table.

The slices are realistic enough to try a pipeline on. A score on them says nothing about patients.
"""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ParameterError, TableError
from brainfeat.phantoms.anatomy import CLASS_NAMES, LEVELS, Patient, cut_plane, make_patient
from brainfeat.phantoms.painting import paint_tissues

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {".png": {"compress_level": 1}, ".jpg": {"quality": 92}}
_SMALLEST_SIZE = 32


def draw_slice(
    class_name: str, *, patient: int, level: int, size: int = 224, random_state: int = 0
) -> NDArray[np.uint8]:
    """Draw one slice of one synthetic patient.

    The slices of a patient share the head, the tumour and the coil; they differ in height and in
    noise. The same number in two classes means two different patients.

    Parameters
    ----------
    class_name : str
        One of `CLASS_NAMES`.
    patient : int
        Number of the patient within the class, at least 0.
    level : int
        Which slice of the patient, from 0 (lowest) to ``LEVELS - 1``. Each one cuts the tumour.
    size : int, default=224
        Width and height in pixels, at least 32. The anatomy does not depend on it.
    random_state : int, default=0
        Seed of all patients, at least 0.

    Returns
    -------
    ndarray of shape (size, size), uint8
        The grey slice, with the nose up. It depends on nothing but the arguments.

    Raises
    ------
    TableError
        If the class is not one of `CLASS_NAMES`.
    ParameterError
        If a number is out of range.

    Examples
    --------
    >>> from brainfeat.phantoms import draw_slice
    >>> image = draw_slice("glioma", patient=3, level=8)
    >>> image.shape, image.dtype
    ((224, 224), dtype('uint8'))
    """
    _check_slice(class_name, patient, level, size, random_state)
    return scan_slice(make_patient(class_name, patient, random_state), level, size)


def draw_mask(
    class_name: str, *, patient: int, level: int, size: int = 224, random_state: int = 0
) -> NDArray[np.bool_]:
    """Draw the tumour mask of the slice that `draw_slice` draws from the same arguments.

    Parameters
    ----------
    class_name, patient, level, size, random_state
        As in `draw_slice`.

    Returns
    -------
    ndarray of shape (size, size), bool
        True within the tumour, which excludes its oedema; False everywhere for ``"notumor"``.

    Raises
    ------
    TableError
        If the class is not one of `CLASS_NAMES`.
    ParameterError
        If a number is out of range.

    Examples
    --------
    >>> from brainfeat.phantoms import draw_mask
    >>> draw_mask("meningioma", patient=0, level=8).any()
    np.True_
    >>> draw_mask("notumor", patient=0, level=8).any()
    np.False_
    """
    _check_slice(class_name, patient, level, size, random_state)
    inside, plane = cut_plane(make_patient(class_name, patient, random_state), level, size)
    mask = np.zeros((size, size), np.bool_)
    mask[inside] = plane.extent > 0.0
    return mask


def write_phantoms(
    folder: str | os.PathLike[str],
    *,
    patients_per_class: int = 10,
    slices_per_patient: int = 4,
    test_fraction: float = 0.2,
    size: int = 224,
    suffix: str = ".png",
    random_state: int = 0,
) -> Path:
    """Write a folder of synthetic slices and the table that describes them.

    The slices are written to ``Training/<class>/`` and ``Testing/<class>/``; all slices of a
    patient are in the same split. ``table.csv`` beside them has the columns ``path`` (relative to
    the table), ``label``, ``split`` (``train`` or ``test``), ``group`` (the patient, such as
    ``glioma-003``) and ``source`` (``phantom``). It is written last, so a folder that has it is
    complete.

    Parameters
    ----------
    folder : path
        A folder that does not exist yet, or is empty.
    patients_per_class : int, default=10
        Number of patients in each class.
    slices_per_patient : int, default=4
        Number of slices of each patient, 1 to `LEVELS`, spread evenly over the patient's levels.
    test_fraction : float, default=0.2
        Fraction of the patients in each class that are held out, in [0, 1). If it is above 0, both
        splits have at least one patient of each class.
    size : int, default=224
        Width and height of a slice in pixels, at least 32.
    suffix : {".png", ".jpg"}, default=".png"
        Format of the slices.
    random_state : int, default=0
        Seed of all patients, at least 0.

    Returns
    -------
    pathlib.Path
        The table.

    Raises
    ------
    TableError
        If `folder` is a file or is not empty.
    ParameterError
        If another argument is out of range.

    Examples
    --------
    >>> import tempfile
    >>> from brainfeat.phantoms import write_phantoms
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = write_phantoms(folder, patients_per_class=2, slices_per_patient=1, size=64)
    ...     for line in table.read_text().splitlines()[:2]:
    ...         print(line)
    path,label,split,group,source
    Training/glioma/glioma-000-08.png,glioma,train,glioma-000,phantom
    """
    _check_seeds(size, random_state)
    levels = _spread_levels(slices_per_patient)
    n_test = _count_test(patients_per_class, test_fraction)
    if suffix not in _SAVE_OPTIONS:
        raise ParameterError(f"suffix {suffix!r}; expected one of {', '.join(_SAVE_OPTIONS)}")
    root = _claim(Path(folder))
    rows = []
    for class_name in CLASS_NAMES:
        for patient in range(patients_per_class):
            split = "train" if patient < patients_per_class - n_test else "test"
            group = f"{class_name}-{patient:03d}"
            stem = root / {"train": "Training", "test": "Testing"}[split] / class_name / group
            stem.parent.mkdir(parents=True, exist_ok=True)
            drawn = make_patient(class_name, patient, random_state)
            for level in levels:
                path = stem.with_name(f"{group}-{level:02d}{suffix}")
                _save(scan_slice(drawn, level, size), path)
                rows.append((path.relative_to(root).as_posix(), class_name, split, group))
    return _write_table(rows, root / "table.csv")


def _check_seeds(size: int, random_state: int) -> None:
    if size < _SMALLEST_SIZE:
        raise ParameterError(f"size {size}; expected at least {_SMALLEST_SIZE} pixels")
    if random_state < 0:
        raise ParameterError(f"random_state {random_state}; expected at least 0")


def _check_slice(class_name: str, patient: int, level: int, size: int, random_state: int) -> None:
    if class_name not in CLASS_NAMES:
        raise TableError(f"class_name {class_name!r}; expected one of {', '.join(CLASS_NAMES)}")
    if patient < 0:
        raise ParameterError(f"patient {patient}; expected at least 0")
    if not 0 <= level < LEVELS:
        raise ParameterError(f"level {level}; expected 0 to {LEVELS - 1}")
    _check_seeds(size, random_state)


def _spread_levels(count: int) -> list[int]:
    if not 1 <= count <= LEVELS:
        raise ParameterError(f"slices_per_patient {count}; expected 1 to {LEVELS}")
    return [(2 * index + 1) * LEVELS // (2 * count) for index in range(count)]


def _count_test(patients_per_class: int, test_fraction: float) -> int:
    if patients_per_class < 1:
        raise ParameterError(f"patients_per_class {patients_per_class}; expected at least 1")
    if not 0.0 <= test_fraction < 1.0:
        raise ParameterError(f"test_fraction {test_fraction}; expected at least 0 and below 1")
    if test_fraction == 0.0:
        return 0
    if patients_per_class == 1:
        raise ParameterError(
            "patients_per_class 1; expected at least 2 where one of them is held out; "
            "ask for more patients, or set test_fraction=0"
        )
    return min(max(round(test_fraction * patients_per_class), 1), patients_per_class - 1)


def _claim(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise TableError(f"{folder} is a file; name a folder that is new or empty")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise TableError(f"{folder} is not empty; name a folder that is new or empty")
    return folder


def _save(image: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, **_SAVE_OPTIONS[path.suffix])


def _write_table(rows: list[tuple[str, str, str, str]], path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("path", "label", "split", "group", "source"))
        writer.writerows((*row, "phantom") for row in rows)
    return path


def scan_slice(patient: Patient, level: int, size: int) -> NDArray[np.uint8]:
    """Paint a slice as a scanner shows it: with a bias field, blur, Rician noise and a gain.

    Parameters
    ----------
    patient : Patient
        Who is scanned.
    level, size : int
        As in `draw_slice`.

    Returns
    -------
    ndarray of shape (size, size), uint8
    """
    from scipy.ndimage import gaussian_filter

    head = patient.head
    x = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    y = x[:, None]
    bias = head.bias
    field = bias[0] * x + bias[1] * y + bias[2] * x * x + bias[3] * y * y + bias[4] * x * y
    signal = gaussian_filter(paint_tissues(patient, level, size) * np.exp(field), 0.003 * size)
    rng = np.random.default_rng([*patient.key, 1 + level])
    real, imaginary = head.noise * rng.standard_normal((2, size, size), dtype=np.float32)
    magnitude = np.sqrt((signal + real) ** 2 + imaginary**2)
    grey: NDArray[np.uint8] = (np.clip(head.gain * magnitude, 0.0, 1.0) * 255.0 + 0.5).astype("u1")
    return grey
