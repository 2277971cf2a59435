"""Write a base and a head as one network, for programs without brainfeat."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BundleError, HeadError, ParameterError
from brainfeat.extraction.preprocessing import scale_pixels
from brainfeat.files import atomic_write, atomic_write_pair, check_output
from brainfeat.heads.bundle import HeadBundle, loaded
from brainfeat.phantoms import CLASS_NAMES, draw_slice
from brainfeat.prediction import keras_export, litert, onnx_export, openvino_export
from brainfeat.prediction.answers import NOTICE
from brainfeat.prediction.computed_features import take_features
from brainfeat.prediction.head_layers import (
    EnsembleLayers,
    HeadLayers,
    find_head_layers,
    require_network_file,
)
from brainfeat.prediction.joined_bases import HeadInputs, Weights, load_bases

Quantize = Literal["float16", "int8"]

# Layers with fewer weights are not rounded. In MobileNet these are the depthwise and the first
# convolutions: 4 % of the weights, and more than half of the error of rounding all.
_LEAST_ROUNDED = 20_000
# The largest difference of a probability from that of the head, by the format of the weights.
_TOLERANCES = {None: 1e-3, "float16": 0.05, "int8": 0.5}
# A slice of each class in the middle of the tumour.
_CHECKED_LEVEL = 8


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """A network that was written.

    Attributes
    ----------
    path : Path
        The file.
    n_bytes : int
        Its size, with that of the file of weights beside it.
    largest_difference : float
        The largest difference of a probability from that of the head, on one synthetic slice of
        each of the four classes.
    """

    path: Path
    n_bytes: int
    largest_difference: float


def export_head(
    bundle: HeadBundle | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    weights: Weights = "imagenet",
    quantize: Quantize | None = None,
    overwrite: bool = False,
) -> ExportedModel:
    """Write base and head as one network from images to calibrated probabilities.

    The input is float32 (n, size, size, 3) in [0, 1], as
    ``brainfeat.extraction.preprocessing.preprocess_image`` returns it; a LiteRT model takes one
    image at a time. The network does not crop: where the bundle's spec has a `crop`, that function
    does so before. The output is float32 (n, k), in the order of the bundle's class names. The
    network cannot abstain. Before the file gets its name, it is run on synthetic slices, and its
    probabilities are compared with those of the bundle.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        A dense head, one with attention over maps, a linear head, or an ensemble of such. An
        ensemble, and a head that was joined on images, take a ``.keras`` or ``.tflite`` file; the
        latter needs bases that see images alike.
    output : path-like
        A file with the suffix ``.keras``; ``.tflite`` for LiteRT; ``.onnx``; or ``.xml`` for
        OpenVINO, which puts the weights into a ``.bin`` file beside it.
    weights : {"imagenet", "random"}, path-like, or mapping of str to these
        As in :class:`brainfeat.Predictor`.
    quantize : {"float16", "int8"} or None
        Number format of the weights; in LiteRT and ONNX models, those of small layers stay in
        float32. A LiteRT or OpenVINO model in int8 also computes with 8-bit integers. An OpenVINO
        model in int8 needs a head that was fitted on features in int8, and rounds as these do.
    overwrite : bool
        Whether an existing model of the same format may be replaced.

    Returns
    -------
    ExportedModel

    Raises
    ------
    ParameterError
        The suffix is unknown, or the options exclude each other; or an ensemble, or a head of
        several bases or layers, cannot have this format.
    HeadError
        The head, or a member of an ensemble, is not a network.
    BundleError
        The file exists or cannot be written, or the network does not give the probabilities of the
        bundle.
    SpecMismatchError
        The weights are not those of the features that the head was fitted on.
    MissingDependencyError
        A library that the format or the quantization needs is not installed.
    """
    output = Path(output)
    form = _choose_format(output, quantize)
    named = list(weights.values()) if isinstance(weights, Mapping) else [weights]
    inputs = [given for given in (bundle, *named) if not isinstance(given, HeadBundle)]
    _check_outputs(output, overwrite=overwrite, inputs=inputs)
    if isinstance(bundle, str | os.PathLike):
        require_network_file(bundle)
    bundle = loaded(bundle)
    _check_bases(bundle, output)
    head = find_head_layers(bundle)
    if isinstance(head, EnsembleLayers):
        _check_ensemble(bundle, output, form)
    int8 = output.suffix == ".xml" and quantize == "int8"
    backbone = _load_base(bundle, weights, int8=int8)
    try:
        with _open_output(output) as temporary:
            form.write(_Parts(bundle, head, backbone, quantize), temporary)
            written = [temporary.with_suffix(path.suffix) for path in _list_files(output)]
            n_bytes = sum(path.stat().st_size for path in written)
            difference = _compare(bundle, backbone, form.compute, temporary)
            if not difference <= _TOLERANCES[quantize]:
                advice = 'pass quantize="float16"' if quantize == "int8" else "take another format"
                raise BundleError(
                    f"{output} was not written, because its probabilities differ by up to "
                    f"{difference:.3f} from those of the head on synthetic slices; expected at "
                    f"most {_TOLERANCES[quantize]}; {advice}"
                )
    except OSError as error:
        raise BundleError(f"{output} cannot be written ({error.strerror})") from error
    return ExportedModel(path=output, n_bytes=n_bytes, largest_difference=difference)


class _Parts(NamedTuple):
    """What a model is made of."""

    bundle: HeadBundle
    head: HeadLayers | EnsembleLayers
    backbone: Any
    quantize: Quantize | None

    @property
    def single(self) -> HeadLayers:
        """The layers of a single head; of an ensemble, `_check_ensemble` has refused them."""
        if isinstance(self.head, EnsembleLayers):
            raise HeadError(f"{self.bundle.head} is an ensemble; expected a single head")
        return self.head


class _Format(NamedTuple):
    """A format: how a model is recognised, written and run, and what it can have.

    Attributes
    ----------
    recognise, write, compute : callable
    quantize : tuple of str
        Number formats of weights.
    joins : bool
        Whether it can have several bases, layers or members.
    """

    recognise: Callable[[Path], bool]
    write: Callable[[_Parts, Path], None]
    compute: Callable[[Path, NDArray[np.float32]], NDArray[np.float32]]
    quantize: tuple[str, ...] = get_args(Quantize)
    joins: bool = False


def _write_keras(parts: _Parts, path: Path) -> None:
    keras_export.build_network(parts.backbone, parts.head).save(path)


def _write_litert(parts: _Parts, path: Path) -> None:
    network = keras_export.build_network(parts.backbone, parts.head)
    model = litert.convert(network)
    if parts.quantize is not None:
        model = litert.round_weights(model, network, parts.quantize, least=_LEAST_ROUNDED)
    path.write_bytes(model)


def _write_onnx(parts: _Parts, path: Path) -> None:
    model = onnx_export.build_model(
        parts.backbone,
        parts.single,
        rounding=parts.quantize,
        least_rounded=_LEAST_ROUNDED,
        metadata=_describe(parts.bundle),
    )
    path.write_bytes(model)


def _write_openvino(parts: _Parts, path: Path) -> None:
    openvino_export.write_model(
        parts.backbone,
        parts.single,
        path,
        half=parts.quantize == "float16",
        metadata=_describe(parts.bundle),
    )


def _is_keras(path: Path) -> bool:
    return is_zipfile(path) and "config.json" in ZipFile(path).namelist()


def _is_litert(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"TFL3"


# By suffix.
_FORMATS = {
    ".keras": _Format(_is_keras, _write_keras, keras_export.compute_probabilities, (), joins=True),
    ".tflite": _Format(_is_litert, _write_litert, litert.compute_probabilities, joins=True),
    ".onnx": _Format(onnx_export.is_model, _write_onnx, onnx_export.compute_probabilities),
    ".xml": _Format(
        openvino_export.is_model, _write_openvino, openvino_export.compute_probabilities
    ),
}


def _choose_format(output: Path, quantize: Quantize | None) -> _Format:
    if output.suffix not in _FORMATS:
        raise ParameterError(
            f"{output.name}; expected a file that ends in {', '.join(_FORMATS)}, which is its "
            "format"
        )
    form = _FORMATS[output.suffix]
    if quantize is not None and quantize not in get_args(Quantize):
        raise ParameterError(
            f"quantize must be one of {', '.join(get_args(Quantize))}, got {quantize!r}"
        )
    if quantize is not None and quantize not in form.quantize:
        able = [suffix for suffix, other in _FORMATS.items() if quantize in other.quantize]
        raise ParameterError(
            f"a {output.suffix} model cannot have weights in {quantize}; expected a file that ends "
            f"in {', '.join(able)}"
        )
    return form


def _check_ensemble(bundle: HeadBundle, output: Path, form: _Format) -> None:
    if not form.joins:
        able = [suffix for suffix, other in _FORMATS.items() if other.joins]
        raise ParameterError(
            f"a {output.suffix} model has a single head, and this one is the ensemble "
            f"{bundle.head}; expected a file that ends in {', '.join(able)}"
        )


def _list_files(output: Path) -> list[Path]:
    """Return the files that a model consists of."""
    if output.suffix == ".xml":
        return [output, output.with_suffix(openvino_export.WEIGHTS_SUFFIX)]
    return [output]


def _check_outputs(output: Path, *, overwrite: bool, inputs: list[str | os.PathLike[str]]) -> None:
    recognise = _FORMATS[output.suffix].recognise
    for path in _list_files(output):
        check_output(
            path,
            overwrite=overwrite,
            kind=f"a {output.suffix} model" if path == output else f"of a {output.suffix} model",
            # Weights alone cannot be recognised, but what is beside them can.
            recognise=lambda _: output.is_file() and recognise(output),
            inputs=inputs,
            error=BundleError,
        )


def _open_output(output: Path) -> AbstractContextManager[Path]:
    files = _list_files(output)
    return atomic_write(output) if len(files) == 1 else atomic_write_pair(*files)


def _check_bases(bundle: HeadBundle, output: Path) -> None:
    """Refuse what a model has no place for: patients, inputs of several sizes, or several bases."""
    if bundle.takes_modalities:
        bundle.require_one_block("an export")
    if bundle.blocks is None:
        return
    if len(HeadInputs.of(bundle.specs).kinds) > 1:
        raise ParameterError(
            "a model has one input, and the bases of this head take images of other sizes or "
            "crops; export a head of bases with one input size and crop"
        )
    if not _FORMATS[output.suffix].joins:
        able = [suffix for suffix, form in _FORMATS.items() if form.joins]
        raise ParameterError(
            f"a {output.suffix} model has one base and one layer, and this head was fitted on "
            f"{', '.join(bundle.blocks.names)}; expected a file that ends in {', '.join(able)}"
        )


def _load_base(bundle: HeadBundle, weights: Weights, *, int8: bool) -> Any:
    spec = bundle.spec
    if int8 and spec.precision != "int8":
        raise ParameterError(
            f"the head was fitted on features in {spec.precision}, and an .xml model in int8 needs "
            'one that was fitted on features in int8; pass quantize="float16", or extract the '
            'features with precision="int8"'
        )
    return load_bases(bundle, weights=weights, precision="int8" if int8 else "float32")


def _compare(
    bundle: HeadBundle,
    backbone: Any,
    compute: Callable[[Path, NDArray[np.float32]], NDArray[np.float32]],
    path: Path,
) -> float:
    """Return the largest difference of a probability from that of the bundle."""
    slices = [
        draw_slice(name, patient=0, level=_CHECKED_LEVEL, size=bundle.specs[0].input_size)
        for name in CLASS_NAMES
    ]
    images = scale_pixels(np.repeat(np.stack(slices)[..., np.newaxis], 3, axis=-1))
    features = take_features(bundle.spec, backbone, backbone(images))
    expected = bundle.predict_proba(features)
    return float(np.abs(compute(path, images) - expected).max())


def _describe(bundle: HeadBundle) -> dict[str, str]:
    """Describe a model, for the formats that have a place for it."""
    spec = bundle.spec
    size, n_classes = spec.input_size, len(bundle.class_names)
    return {
        "class_names": json.dumps(bundle.class_names),
        "input": f"images: float32 (n, {size}, {size}, 3), RGB in [0, 1]; grey is repeated three "
        f"times, and every image is {'cropped and ' if spec.crop else ''}stretched to this size",
        "output": f"probabilities: float32 (n, {n_classes}), calibrated, in the order of "
        "class_names",
        "image_size": str(size),
        "value_range": spec.value_range,
        **({"crop": spec.crop} if spec.crop else {}),
        "base": spec.backbone,
        "weights_sha256": spec.weights_sha256,
        "head": bundle.head,
        "brainfeat": version("brainfeat"),
        "intended_use": f"For research and teaching. {NOTICE} The model cannot abstain: it gives "
        "probabilities for any image.",
    }
