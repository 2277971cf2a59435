#!/usr/bin/env bash
# Keras 3.15.1 on TensorFlow 2.21.0, tf2onnx 1.17.0, onnx 1.23.2, NumPy 2.4.6, CPython 3.11, Linux: a
# model with VGG16's own `preprocess_input` in front is exported to an ONNX file that cannot be run.
#
# Behaviour: `model.export(..., format="onnx")` ends without an error or a warning. ONNX Runtime 1.32.0
# loads the file, and it has a second input, "…/Squeeze/input:0", of which the model knows nothing; a run
# with the images alone is refused. VGG16's preprocessing puts the channels into the order of BGR by a
# stack of single channels, and subtracts a mean. The stack alone is exported correctly, and so are
# MobileNet's preprocessing and channels reversed by a slice. Nothing but a run of the file shows it.
# What helps: to preprocess outside of the model, or to write it as a slice and an addition; and to run
# every exported file once. The model is called before, as Keras exports no other one to ONNX.
#
# Output seen:
#   vgg16.preprocess_input: inputs ['images', 'Squeeze/input:0'] runs False
#   stack of channels: inputs ['images'] runs True
#   mobilenet.preprocess_input: inputs ['images'] runs True
#   reversed channels: inputs ['images'] runs True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 \
    onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" << 'PY'
import warnings

import numpy as np

warnings.simplefilter("ignore")
import keras  # noqa: E402
import onnxruntime  # noqa: E402

IMAGE = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)


def check(name, preprocess):
    """Export preprocessing and a convolution, and run the file on an image."""
    images = keras.Input((8, 8, 3), name="images")
    model = keras.Model(images, keras.layers.Conv2D(2, 3)(preprocess(images)))
    expected = np.asarray(model(IMAGE))
    model.export("model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    # Keras numbers its models, and the number is before the slash.
    inputs = [entry.name.split("/", 1)[-1] for entry in session.get_inputs()]
    try:
        found = session.run(None, {"images": IMAGE})[0]
    except ValueError:  # an input is missing
        runs = False
    else:
        runs = bool(np.abs(found - expected).max() < 1e-3)
    print(f"{name}: inputs {inputs} runs {runs}")


check("vgg16.preprocess_input", keras.applications.vgg16.preprocess_input)
check("stack of channels", lambda x: keras.ops.stack([x[..., i] for i in (2, 1, 0)], axis=-1))
check("mobilenet.preprocess_input", keras.applications.mobilenet.preprocess_input)
check("reversed channels", lambda x: x[..., ::-1])
PY
cat > "$work/expected" << 'TXT'
vgg16.preprocess_input: inputs ['images', 'Squeeze/input:0'] runs False
stack of channels: inputs ['images'] runs True
mobilenet.preprocess_input: inputs ['images'] runs True
reversed channels: inputs ['images'] runs True
TXT
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python check.py 2> errors | tee seen
diff expected seen
