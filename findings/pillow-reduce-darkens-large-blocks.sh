#!/usr/bin/env bash
# Pillow 13.0.0, NumPy 2.4.6, CPython 3.11, Linux: the mean of a large block of white pixels is grey, or
# black.
#
# Behaviour: `Image.reduce(k)` gives each block of k × k pixels its mean. It multiplies the sum by the
# whole part of 2²⁴ / k², so that the mean is too low by up to one part in 2²⁴ / k²: a white 8-bit image is
# still 255 for k = 256, 254 for k = 300, 243 for k = 1000, 137 for k = 3000, and 0 for k = 4096. Halves of
# a grey value are rounded up where k² divides 2²⁴, and down elsewhere: three of six pixels that are 1
# have the mean 0, two of four the mean 1. `thumbnail` reduces by such a factor before it resizes, so that
# a white image of 4000 × 4000 pixels has a thumbnail of 2 × 2 that is not white. There is no warning.
# What helps: `resize` with `Resampling.BOX`, which gives 255 each time, or several small factors.
#
# Output seen:
#   reduce 256: 255
#   reduce 300: 254
#   reduce 1000: 243
#   reduce 3000: 137
#   reduce 4096: 0
#   box 1000: 255
#   thumbnail of 4000 x 4000: 243
#   halves: 0 of six, 1 of four
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
cat > "$work/check.py" << 'PY'
import numpy as np
from PIL import Image


def white(side):
    """Make a white image of 8 bits."""
    return Image.new("L", (side, side), 255)


found = {}
for factor in (256, 300, 1000, 3000, 4096):
    found[f"reduce {factor}"] = white(factor).reduce(factor).getpixel((0, 0))
found["box 1000"] = white(1000).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
small = white(4000)
small.thumbnail((2, 2))
found["thumbnail of 4000 x 4000"] = small.getpixel((0, 0))
six, four = (np.repeat(np.uint8([1, 0]), half).reshape(2, half) for half in (3, 2))
halves = [int(np.asarray(Image.fromarray(ones).reduce(ones.shape[::-1]))[0, 0]) for ones in (six, four)]
for name, value in found.items():
    print(f"{name}: {value}")
print(f"halves: {halves[0]} of six, {halves[1]} of four")
assert [*found.values()] == [255, 254, 243, 137, 0, 255, 243], found
assert halves == [0, 1], halves
PY
"$work/venv/bin/python" "$work/check.py"
