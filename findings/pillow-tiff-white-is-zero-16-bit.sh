#!/usr/bin/env bash
# Pillow 13.0.0, NumPy 2.4.6, CPython 3.11: of grey TIFFs that store white as 0, those of 8 bits are
# inverted when they are read, those of 16 bits are not, or are refused, by their byte order.
#
# Behaviour: the tag PhotometricInterpretation (262) is 0 where the value 0 is white, and 1 where it
# is black. Pillow inverts an image of 8 bits with tag 0, so that 0 is black in the array. It gives
# one of 16 bits in little-endian order as it is stored, with the same mode, "I;16", as for tag 1 and
# without a warning, and refuses one in big-endian order (UnidentifiedImageError). It inverts floats
# in neither order. So the 8-bit and the 16-bit copy of one picture have opposite contrast, and tissue
# that is bright in one is dark in the other. What helps: to look at `tag_v2[262]`, and to subtract
# the pixels from 65535 where it is 0 and the mode is "I;16".
#
# Output seen:
#   uint8 little tag 1 mode L [0, 1, 100, 200]
#   uint8 little tag 0 mode L [255, 254, 155, 55]
#   uint8 big tag 1 mode L [0, 1, 100, 200]
#   uint8 big tag 0 mode L [255, 254, 155, 55]
#   uint16 little tag 1 mode I;16 [0, 1, 100, 200]
#   uint16 little tag 0 mode I;16 [0, 1, 100, 200]
#   uint16 big tag 1 mode I;16B [0, 1, 100, 200]
#   uint16 big tag 0 UnidentifiedImageError
#   float32 little tag 1 mode F [0.0, 1.0, 100.0, 200.0]
#   float32 little tag 0 mode F [0.0, 1.0, 100.0, 200.0]
#   float32 big tag 1 mode F [0.0, 1.0, 100.0, 200.0]
#   float32 big tag 0 mode F [0.0, 1.0, 100.0, 200.0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
cat > "$work/check.py" << 'PY'
import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

ORDERS = {"little": ("<", b"II"), "big": (">", b"MM")}


def tiff(pixels, order, photometric):
    """The bytes of a TIFF of one uncompressed strip of grey values."""
    sign, mark = ORDERS[order]
    data = pixels.astype(pixels.dtype.newbyteorder(sign)).tobytes()
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: photometric}
    tags |= {273: 8, 277: 1, 278: height, 279: len(data), 339: 3 if pixels.dtype.kind == "f" else 1}
    entries = [struct.pack(f"{sign}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    head = mark + struct.pack(f"{sign}HI", 42, 8 + len(data)) + data
    return head + struct.pack(f"{sign}H", len(entries)) + b"".join(entries) + bytes(4)


for dtype in (np.uint8, np.uint16, np.float32):
    for order in ORDERS:
        for photometric in (1, 0):
            row = np.array([[0, 1, 100, 200]], dtype)
            words = (dtype.__name__, order, "tag", photometric)
            try:
                image = Image.open(io.BytesIO(tiff(row, order, photometric)))
            except UnidentifiedImageError as error:
                print(*words, type(error).__name__)
                continue
            assert image.tag_v2[262] == photometric
            print(*words, "mode", image.mode, np.asarray(image)[0].tolist())
PY
cat > "$work/expected" << 'TXT'
uint8 little tag 1 mode L [0, 1, 100, 200]
uint8 little tag 0 mode L [255, 254, 155, 55]
uint8 big tag 1 mode L [0, 1, 100, 200]
uint8 big tag 0 mode L [255, 254, 155, 55]
uint16 little tag 1 mode I;16 [0, 1, 100, 200]
uint16 little tag 0 mode I;16 [0, 1, 100, 200]
uint16 big tag 1 mode I;16B [0, 1, 100, 200]
uint16 big tag 0 UnidentifiedImageError
float32 little tag 1 mode F [0.0, 1.0, 100.0, 200.0]
float32 little tag 0 mode F [0.0, 1.0, 100.0, 200.0]
float32 big tag 1 mode F [0.0, 1.0, 100.0, 200.0]
float32 big tag 0 mode F [0.0, 1.0, 100.0, 200.0]
TXT
"$work/venv/bin/python" "$work/check.py" | tee "$work/seen"
diff "$work/expected" "$work/seen"
