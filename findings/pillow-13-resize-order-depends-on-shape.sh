#!/usr/bin/env bash
# Pillow 13.0.0 and 12.0.0, NumPy 2.4.0, CPython 3.11: an image that is higher than wide is resized to
# other pixels by Pillow 13 than by Pillow 12; one that is wider than high, or square, to the same.
#
# Behaviour: `Image.resize` filters rows and columns one after the other and rounds to 8 bits in
# between, so the order shows in the last bit. Pillow 12 always begins with the width. Pillow 13
# begins with the height where the image is higher than wide. So about a quarter of the pixels of a
# portrait image differ by one between the two versions, for the same call, while landscape images
# agree: a check on landscape images alone sees nothing. Resizing commutes with transposing in
# Pillow 13, but for square images, and not in Pillow 12. Features of portrait images, digests of
# resized images and golden values of tests change with the version. Two calls of `resize`, one for
# each side, give the same pixels in both.
#
# Output seen (pixels of 16,384 that differ from resizing the transposed image, from resizing the
# width first, and from resizing the height first):
#   12.0.0 portrait transposed 3759 width-first 0 height-first 3759
#   12.0.0 landscape transposed 3804 width-first 0 height-first 3804
#   12.0.0 square transposed 3585 width-first 0 height-first 3585
#   13.0.0 portrait transposed 0 width-first 3759 height-first 0
#   13.0.0 landscape transposed 0 width-first 0 height-first 3804
#   13.0.0 square transposed 3585 width-first 0 height-first 3585
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/check.py" << 'PY'
import numpy as np
from PIL import Image, __version__

SIZE, FILTER = (128, 128), Image.Resampling.BILINEAR
rng = np.random.default_rng(0)
for name, shape in {"portrait": (200, 160), "landscape": (160, 200), "square": (200, 200)}.items():
    image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
    pixels = np.asarray(image.resize(SIZE, FILTER))
    turned = image.transpose(Image.Transpose.TRANSPOSE).resize(SIZE, FILTER)
    width_first = image.resize((128, shape[0]), FILTER).resize(SIZE, FILTER)
    height_first = image.resize((shape[1], 128), FILTER).resize(SIZE, FILTER)
    others = np.asarray(turned).T, np.asarray(width_first), np.asarray(height_first)
    assert all(abs(pixels.astype(int) - other).max() <= 1 for other in others)
    found = [int((pixels != other).sum()) for other in others]
    words = ("transposed", "width-first", "height-first")
    print(__version__, name, *(text for pair in zip(words, found, strict=True) for text in pair))
PY
for version in 12.0.0 13.0.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet "pillow==$version" numpy==2.4.0
    "$work/$version/bin/python" "$work/check.py"
done | tee "$work/seen"
cat > "$work/expected" << 'TXT'
12.0.0 portrait transposed 3759 width-first 0 height-first 3759
12.0.0 landscape transposed 3804 width-first 0 height-first 3804
12.0.0 square transposed 3585 width-first 0 height-first 3585
13.0.0 portrait transposed 0 width-first 3759 height-first 0
13.0.0 landscape transposed 0 width-first 0 height-first 3804
13.0.0 square transposed 3585 width-first 0 height-first 3585
TXT
diff "$work/expected" "$work/seen"
