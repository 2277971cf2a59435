"""Phantoms: seeded synthetic brain slices of the four classes, for the demo, tests and docs."""

from brainfeat.phantoms.anatomy import CLASS_NAMES, LEVELS
from brainfeat.phantoms.drawing import draw_mask, draw_slice, write_phantoms

__all__ = ["CLASS_NAMES", "LEVELS", "draw_mask", "draw_slice", "write_phantoms"]
