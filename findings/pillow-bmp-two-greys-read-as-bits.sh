#!/usr/bin/env bash
# Pillow 13.0.0, NumPy 2.4.6, CPython 3.11: a BMP of 8 bits per pixel whose palette is black and white,
# and nothing else, is read to other pixels, without an error, even if Pillow itself has written it.
#
# Behaviour: an image of mode "P" with the palette black, white is saved as a BMP of one byte per
# pixel with two colours. When it is opened, its mode is "1" and each byte is taken for eight pixels,
# seven black ones and one by the index, so that only the first eighth of each row is used, spread
# over the whole row. This happens where the palette has exactly the entries black, white: with white
# before black, with 254 for white, with a third grey, or with the same two entries padded to 256,
# the pixels are as the palette says. The shape is right in all cases. Masks and scans of two levels
# are such images, and their features are those of a mostly black picture. What helps: to look the
# indices up in the palette by hand, as below, where a BMP has 8 bits per pixel and two colours, or to
# save such images as PNG.
#
# Output seen (the mode, the pixels of 512 that differ from the palette looked up by hand, the share
# of white pixels read and by hand):
#   black,white mode 1 wrong 261 white 0.062 of 0.494
#   white,black mode P wrong 0 white 0.506 of 0.506
#   black,254 mode P wrong 0 white 0.494 of 0.494
#   black,white,grey mode P wrong 0 white 0.494 of 0.494
#   black,white,black*254 mode P wrong 0 white 0.494 of 0.494
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
cat > "$work/check.py" << 'PY'
import io
import struct

import numpy as np
from PIL import Image

PALETTES = {
    "black,white": [0, 255],
    "white,black": [255, 0],
    "black,254": [0, 254],
    "black,white,grey": [0, 255, 128],
    "black,white,black*254": [0, 255] + [0] * 254,
}


def by_hand(data):
    """The greys of an uncompressed BMP of 8 bits per pixel, by its header, palette and rows."""
    start, _, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    (colours,) = struct.unpack_from("<I", data, 46)
    assert (bits, compression, start) == (8, 0, 54 + 4 * colours)
    palette = np.frombuffer(data, np.uint8, 4 * colours, 54).reshape(-1, 4)[:, 0]
    rows = np.frombuffer(data, np.uint8, (width + 3) // 4 * 4 * height, start)
    return palette[rows.reshape(height, -1)[::-1, :width]]


indices = np.random.default_rng(0).integers(0, 2, (16, 32), np.uint8)
for name, greys in PALETTES.items():
    image = Image.fromarray(indices)
    image.putpalette([grey for grey in greys for _ in "RGB"])
    file = io.BytesIO()
    image.save(file, "BMP")
    expected = by_hand(file.getvalue())
    assert (expected == np.array(greys, np.uint8)[indices]).all()
    with Image.open(file) as opened:
        mode, pixels = opened.mode, np.asarray(opened.convert("L"))
    assert pixels.shape == expected.shape
    whites = [f"{(array > 128).mean():.3f}" for array in (pixels, expected)]
    wrong = (pixels != expected).sum()
    print(name, "mode", mode, "wrong", wrong, "white", " of ".join(whites))
PY
cat > "$work/expected" << 'TXT'
black,white mode 1 wrong 261 white 0.062 of 0.494
white,black mode P wrong 0 white 0.506 of 0.506
black,254 mode P wrong 0 white 0.494 of 0.494
black,white,grey mode P wrong 0 white 0.494 of 0.494
black,white,black*254 mode P wrong 0 white 0.494 of 0.494
TXT
"$work/venv/bin/python" "$work/check.py" | tee "$work/seen"
diff "$work/expected" "$work/seen"
