"""Readers: image files become float32 arrays in [0, 1]; each family of formats has a module."""

from brainfeat.readers.containers import ImageHeader
from brainfeat.readers.raster import read_bytes, read_header, read_image

__all__ = ["ImageHeader", "read_bytes", "read_header", "read_image"]
