"""Readers: image files become float32 arrays in [0, 1]; each family of formats has a module."""

from brainfeat.readers.containers import ImageHeader
from brainfeat.readers.raster import read_header, read_image, read_pixels
from brainfeat.readers.sources import ImageBytes, read_bytes

__all__ = ["ImageBytes", "ImageHeader", "read_bytes", "read_header", "read_image", "read_pixels"]
