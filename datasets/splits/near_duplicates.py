"""Which pictures of a data set show nearly the same: copies of one picture, and frames of one video.

Two pictures belong together if

- their perceptual hashes differ in at most `NEAR` bits, whatever their names; or
- they follow each other in a numbered sequence (`clip_001`, `clip_002`) and look alike. Numbers alone prove nothing,
  since most cameras and data sets number their photographs; or
- their names say that one picture was augmented or exported several times (`photo_jpg.rf.1f0c…`, of Roboflow).

Belonging together is passed on: a picture belongs to all that its neighbours belong to.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from datasets.splits.perceptual_hash import close_pairs, distance, hash_files, perceptual_hash, usual_distance
from datasets.splits.stable_numbers import stable_number

__all__ = [
    "groups_of_near_duplicates",
    "hash_files",
    "likeness_limits",
    "name_without_export",
    "perceptual_hash",
    "sequence_key",
    "sequence_number",
]

NEAR = 48  # of 256 bits
NEXT = 15  # of the lowest 64 bits, for pictures that follow each other in a sequence
NEXT_IN_VIDEO = 22  # the same, in a sequence where at least half of the neighbours are that near
LOWEST = 64
ONE_SCENE = 96  # three quarters of all pairs differ in less: the data set shows one scene
EQUAL = 2  # of 256 bits, then
SAMPLE = 500  # pictures that are compared to find that out

_ROBOFLOW = re.compile(r"^(?P<stem>.+)\.rf\.[0-9A-Za-z]{16,64}$")
_NUMBER = re.compile(r"[0-9]+")


def sequence_key(file_name: str) -> str:
    """The name without its running number and its suffix: `a/clip_001.jpg` and `a/clip_002.jpg` have one key.

    The running number is the last run of digits. What Roboflow appends to a name does not count.
    """
    folder, stem = _folder_and_stem(file_name)
    found = _last_number(stem)
    return f"{folder}/{stem[: found.start()]}#{stem[found.end() :]}" if found else f"{folder}/{stem}"


def sequence_number(file_name: str) -> int | None:
    """The running number in a name, None if it has none (or one of more than 18 digits)."""
    found = _last_number(_folder_and_stem(file_name)[1])
    return int(found[0]) if found and len(found[0]) <= 18 else None


def groups_of_near_duplicates(file_names: Sequence[str], hashes: Sequence[int | None]) -> list[list[int]]:
    """The groups of pictures that belong together, see the head of this module; pictures of their own are left out.

    Args:
        file_names: of the pictures, relative to their folder.
        hashes: as `perceptual_hash` gives them; None for a file that cannot be read, which only its name can group.

    Returns:
        Indices of two or more pictures each, ascending, and the groups in the order of their first picture.
    """
    near, following = likeness_limits(file_names, hashes)
    known = [index for index, value in enumerate(hashes) if value is not None]
    pairs = [(known[i], known[j]) for i, j, _ in close_pairs([hashes[index] for index in known], near)]
    pairs += _sequence_pairs(file_names, hashes, following)
    pairs += _export_pairs(file_names)
    return _connected(len(file_names), pairs)


def likeness_limits(file_names: Sequence[str], hashes: Sequence[int | None]) -> tuple[int, int]:
    """(bits in which any two near-duplicates may differ, lowest bits in which frames that follow each other may).

    `NEAR` and `NEXT`. Where nearly all pictures are alike, as those of a fixed camera, likeness proves nothing: then
    only equal pictures are near-duplicates, (`EQUAL`, -1). A sample that depends on the names decides.
    """
    known = sorted(
        (stable_number(name), value) for name, value in zip(file_names, hashes, strict=True) if value is not None
    )
    one_scene = len(known) > 2 and usual_distance([value for _, value in known[:SAMPLE]]) < ONE_SCENE
    return (EQUAL, -1) if one_scene else (NEAR, NEXT)


def _sequence_pairs(file_names: Sequence[str], hashes: Sequence[int | None], most: int) -> list[tuple[int, int]]:
    """Neighbours in a numbered sequence that differ in at most `most` of their lowest bits.

    In a sequence that is a video by most of its neighbours, the others may have moved faster.
    """
    sequences: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, (name, value) in enumerate(zip(file_names, hashes, strict=True)):
        number = sequence_number(name)
        if number is not None and value is not None:
            sequences[sequence_key(name)].append((number, index))
    pairs = []
    for members in sequences.values():
        order = [index for _, index in sorted(members)]
        neighbours = [(i, j, distance(hashes[i], hashes[j], LOWEST)) for i, j in zip(order, order[1:])]
        near = sum(apart <= most for *_, apart in neighbours)
        is_video = near > 1 and 2 * near >= len(neighbours)
        pairs += [(i, j) for i, j, apart in neighbours if apart <= (NEXT_IN_VIDEO if is_video else most)]
    return pairs


def _export_pairs(file_names: Sequence[str]) -> list[tuple[int, int]]:
    """Pictures that one export made of one picture."""
    first: dict[tuple[str, str], int] = {}
    pairs = []
    for index, name in enumerate(file_names):
        if _ROBOFLOW.match(PurePosixPath(name).stem):
            pairs.append((first.setdefault(_folder_and_stem(name), index), index))
    return [pair for pair in pairs if pair[0] != pair[1]]


def _last_number(stem: str) -> re.Match[str] | None:
    return next(iter(deque(_NUMBER.finditer(stem), maxlen=1)), None)


def name_without_export(file_name: str) -> str:
    """The name with `/` between folders, and without what Roboflow appended to it and changes at every export."""
    folder, stem = _folder_and_stem(file_name)
    return f"{'' if folder == '.' else f'{folder}/'}{stem}{PurePosixPath(file_name).suffix}"


def _folder_and_stem(file_name: str) -> tuple[str, str]:
    path = PurePosixPath(file_name.replace("\\", "/"))
    exported = _ROBOFLOW.match(path.stem)
    return str(path.parent), exported["stem"] if exported else path.stem


def _connected(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The connected components of two or more of `count` nodes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return []
    one, other = np.array(pairs).T
    _, labels = connected_components(coo_array((np.ones(len(one)), (one, other)), shape=(count, count)), directed=False)
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        members[label].append(index)
    return [group for group in members.values() if len(group) > 1]
