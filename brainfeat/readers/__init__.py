"""Readers: an image file to float32 in [0, 1]; one module a family of formats."""

from brainfeat.readers.containers import ImageHeader
from brainfeat.readers.raster import read_bytes, read_header, read_image

__all__ = ["ImageHeader", "read_bytes", "read_header", "read_image"]
