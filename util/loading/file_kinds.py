"""What a file is, judged by its first bytes, so that a message can say what was handed in by mistake."""

from __future__ import annotations

import re

START = 512  # bytes of a file that `kind_of` looks at; a tar archive names itself at byte 257

_SIGNATURES = {
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "a ZIP archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"PAR1": "a Parquet table",
    b"SQLite format 3": "a SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"version https://git-lfs": "a Git LFS pointer",
}
_TEXTS = (  # of the first line that is not empty
    (r"<!doctype html|<html", "an HTML page"),
    (r"<[?!\w]", "XML"),
    (r"%YAML|---\s*$|[\w-]+:(\s|$)", "YAML"),
    (r"\d+( +[\d.eE+-]+){4,}\s*$", "YOLO's text format"),
    (r"[^{}\[\]\"]*,[^{}\[\]\"]*,", "a table of comma-separated values"),
)


def kind_of(start: bytes) -> str | None:
    """What a file with these first bytes is, with its article, such as "a gzip archive"; None if it is not known.

    JSON and text without a known form are not named.
    """
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return name
    if start[257:262] == b"ustar":
        return "a tar archive"
    if start[8:9] == b"{" and start[1:8].count(0) >= 3:  # the header's length in 8 bytes, then the header as JSON
        return "a safetensors file"
    if re.match(rb"\x80[\x02-\x05]", start):
        return "a Python pickle"
    if len(start) >= 8 and not any(start):
        return "nothing but zeros, as an interrupted copy leaves it,"
    line = next((line for line in start.decode("utf-8", "replace").lstrip("\ufeff").splitlines() if line.strip()), "")
    for pattern, name in _TEXTS:
        if re.match(pattern, line.strip(), re.IGNORECASE):
            return name
    return None


def advice_for(kind: str) -> str:
    """What to do with a file of this kind: a clause that ends a sentence."""
    if kind.endswith("archive"):
        return "unpack it and pass the file in it"
    if kind == "a Git LFS pointer":
        return "fetch the file itself with `git lfs pull`"
    if kind == "an HTML page":
        return "it is probably a page about the file: download the file itself"
    return "pass another file"
