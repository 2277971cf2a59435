"""DICOM files without preamble: recognised by their first elements, not by a magic word.

Before there was PS3.10, files held the data set alone, and some archives still write it so.
"""

import re
import struct
from typing import NamedTuple

HEAD = 4096

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

_META, _IDENTIFYING = 0x0002, 0x0008  # groups
_TRANSFER_SYNTAX, _SOP_CLASS = 0x00020010, 0x00080016
# UIDs of storage SOP classes (PS3.6, table A-1).
_STORAGE = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.[0-9.]{1,39}[\0 ]?")
# Value representations, by the number of bytes of their length (PS3.5, 7.1.2).
_SHORT = {
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT"),
    *(b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


class _Element(NamedTuple):
    tag: int
    explicit: bool
    value: bytes
    end: int


def find_syntax(head: bytes) -> str | None:
    r"""Find the transfer syntax of a DICOM file without preamble.

    The file has to begin with elements of the groups 0002 and 0008 in ascending order, each of
    which has a valid length, up to an SOP class that is one of those for storage.

    Parameters
    ----------
    head : bytes
        The first `HEAD` bytes of the file.

    Returns
    -------
    str or None
        UID of the transfer syntax: the one that group 0002 states, or else implicit or explicit VR
        little endian; None where this is not such a file.

    Examples
    --------
    >>> uid = b"1.2.840.10008.5.1.4.1.1.4\0"
    >>> find_syntax(b"\x08\0\x16\0UI" + bytes([len(uid), 0]) + uid)
    '1.2.840.10008.1.2.1'
    >>> find_syntax(b"no DICOM")
    """
    place, last, syntax = 0, 0, None
    explicit: bool | None = None
    while (element := _read_element(head, place)) is not None and element.tag > last:
        group = element.tag >> 16
        if group == _META and element.explicit:
            if element.tag == _TRANSFER_SYNTAX:
                syntax = element.value.rstrip(b"\0 ").decode("ascii", "replace")
        elif group == _IDENTIFYING and explicit in (None, element.explicit):
            explicit = element.explicit
            if element.tag == _SOP_CLASS:
                known = _STORAGE.fullmatch(element.value)
                return (syntax or (EXPLICIT if explicit else IMPLICIT)) if known else None
        else:
            return None
        place, last = element.end, element.tag
    return None


def _read_element(head: bytes, place: int) -> _Element | None:
    """Read the element at a place; None where it is not whole, or cannot be one."""
    start = head[place : place + 12]
    if len(start) < 12:
        return None
    group, number, representation, short, long = struct.unpack("<HH2sHI", start)
    explicit = representation in _SHORT or representation in _LONG
    if not explicit:
        begin, length = place + 8, int.from_bytes(start[4:8], "little")
    elif representation in _SHORT:
        begin, length = place + 8, short
    else:
        begin, length = place + 12, long
    end = begin + length
    if length % 2 or end > len(head):
        return None
    return _Element(group << 16 | number, explicit, head[begin:end], end)
