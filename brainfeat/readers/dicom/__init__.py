"""DICOM through pydicom: files, what their headers say, which frames are one volume, and pixels.

Nothing that names a person leaves this package, but for what `instances` reads for results that are
written as DICOM. Messages of pydicom quote the content of files;
none of them is passed on, whether as an error, a warning or a log record, and every error is raised
without its cause.
"""

from brainfeat.readers.dicom.files import is_dicom
from brainfeat.readers.dicom.headers import read_header
from brainfeat.readers.dicom.stacks import Stack, find_stacks
from brainfeat.readers.dicom.volumes import identify_series, read_series

__all__ = ["Stack", "find_stacks", "identify_series", "is_dicom", "read_header", "read_series"]
