"""Write the layers of the bases from the models of Keras: ``python -m tests.support.write_graphs``.

``tests/test_graph.py`` compares the files of the package with what this makes.
"""

import json
import re
from collections import Counter
from pathlib import Path

import brainfeat.extraction
from brainfeat.extraction.architectures import BACKBONES, build_base

# The options that change what a layer computes; the graph has no others.
OPTIONS = {
    "InputLayer": (),
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "activation", "use_bias"),
    "DepthwiseConv2D": ("kernel_size", "strides", "padding", "activation", "use_bias"),
    "BatchNormalization": ("epsilon", "center", "scale"),
    "Normalization": (),
    "Rescaling": ("scale", "offset"),
    "Activation": ("activation",),
    "ReLU": ("max_value",),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "AveragePooling2D": ("pool_size", "strides", "padding"),
    "GlobalAveragePooling2D": (),
    "ZeroPadding2D": ("padding",),
    "Reshape": ("target_shape",),
    "Concatenate": (),
    "Add": (),
    "Multiply": (),
    "Dropout": (),
}
# What the options that are left out must be.
EXPECTED = {
    "data_format": "channels_last",
    "dilation_rate": (1, 1),
    "groups": 1,
    "depth_multiplier": 1,
    "renorm": False,
    "invert": False,
    "negative_slope": 0.0,
    "threshold": 0.0,
    "keepdims": False,
    "axis": (3, -1, (3,)),
}


def describe_base(name: str) -> list[dict]:
    """Describe the layers of a base, for even and for odd sizes of its input."""
    even, odd = (build_base(BACKBONES[name], size, "float32").layers for size in (64, 65))
    names = _rename([layer.name for layer in even])
    return [_describe(layer, other, names) for layer, other in zip(even, odd, strict=True)]


def _describe(layer, other, names: dict[str, str]) -> dict:
    kind, config = type(layer).__name__, layer.get_config()
    for option, value in EXPECTED.items():
        if option in config:
            assert config[option] == value or (option == "axis" and config[option] in value), option
    options = {option: config[option] for option in OPTIONS[kind]}
    if other.get_config().get("padding") != config.get("padding"):
        (following,) = [node.operation for node in layer._outbound_nodes]
        options = {"padding": "correct", "kernel_size": following.kernel_size}
    inputs = [tensor._keras_history.operation.name for tensor in _list(layer.input)]
    entry = {
        "name": names[layer.name],
        "kind": kind,
        "inputs": [] if kind == "InputLayer" else [names[name] for name in inputs],
        "options": options,
        "weights": [
            (weight.name, tuple(weight.shape), str(weight.dtype))
            for weight in (*layer.trainable_variables, *layer.non_trainable_variables)
            if "seed_generator" not in weight.path
        ],
    }
    return json.loads(json.dumps(entry))


def _list(tensors) -> list:
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def _rename(names: list[str]) -> dict[str, str]:
    """Number the layers that Keras names by itself from the start of the model."""
    found, numbers = {}, Counter()
    for name in names:
        automatic = re.fullmatch(
            r"(input_layer|normalization|rescaling|zero_padding2d)(_\d+)?", name
        )
        kind = automatic and automatic[1]
        found[name] = f"{kind}_{numbers[kind]}".removesuffix("_0") if kind else name
        numbers[kind] += 1
    return found


if __name__ == "__main__":
    folder = Path(brainfeat.extraction.__file__).parent / "graphs"
    for name in BACKBONES:
        lines = ",\n".join(json.dumps(layer) for layer in describe_base(name))
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
