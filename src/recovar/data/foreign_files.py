"""What a file may be that is not of the format it was taken for."""

import numpy as np

_STARTS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
}
_OTHERS = {
    b"\x89HDF": "an HDF5 file, as EMAN2 and others write",
    b"II*\x00": "a TIFF file",
    b"MM\x00*": "a TIFF file",
    b"\x93NUMPY": "an array of NumPy",
    b"\x94CSDAT": "a table of cryoSPARC",
    b"<": "a web page or XML, as a failed download leaves",
}
_EM_BYTES = {1: 1, 2: 2, 4: 4, 5: 4, 8: 8, 9: 8}
"""Bytes of a value by the code of its type in EM files."""


def guess_format(raw: bytes, size: int) -> str:
    """Say in a sentence what a file may be and what to do, if its first bytes tell.

    Args:
        raw: The first bytes of the file.
        size: Bytes of the file.
    """
    raw = raw.ljust(16, b"\x00")
    for start, name in _STARTS.items():
        if raw.startswith(start):
            return f"It looks compressed ({name}); decompress it first."
    for start, name in _OTHERS.items():
        if raw.startswith(start):
            return f"It looks like {name}; convert it to MRC, or fetch it again."
    if _is_em(raw, size):
        return "It looks like an EM file, as TOM and Dynamo write; convert it to MRC."
    if _is_spider(raw):
        return "It looks like a SPIDER file; convert it to MRC."
    return "Copy it again, or convert it to MRC."


def _is_em(raw: bytes, size: int) -> bool:
    width = _EM_BYTES.get(raw[3])
    if width is None or raw[0] > 6:
        return False
    for order in ("<", ">"):
        sides = [int(side) for side in np.frombuffer(raw[4:16], order + "i4")]
        if min(sides) > 0 and 512 + width * sides[0] * sides[1] * sides[2] == size:
            return True
    return False


def _is_spider(raw: bytes) -> bool:
    for order in ("<", ">"):
        sections, rows = np.frombuffer(raw[:8], order + "f4")
        with np.errstate(invalid="ignore"):
            whole = sections == np.rint(sections) and rows == np.rint(rows)
        if whole and 0 < abs(sections) < 100_000 and 0 < rows < 100_000:
            return True
    return False
