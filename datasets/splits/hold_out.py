"""The validation part of a run whose data have none: `--val_share`, `--val_split`, or the split of the run itself."""

from __future__ import annotations

from argparse import Namespace

from datasets.annotations.instances import read_coco
from datasets.formats.part import Part
from datasets.splits.parts import SplitParts, side_of, split_part
from datasets.splits.record import Split, read_split
from util.arguments import named_settings
from util.dist import run_on_main
from util.logging import get_logger
from util.settings import MAX_PIXELS
from util.text import printable


def wants_split(args: Namespace, earlier: Split | None, *, has_val: bool) -> bool:
    """Whether validation images are held out of the training part.

    Args:
        args: `val_share`, `val_split`, and those of them that the user names, see `named_settings`.
        earlier: the split of the run that resumes or is evaluated.
        has_val: the data have a validation part, which is then used, with a warning.
    """
    share, file = getattr(args, "val_share", 0), getattr(args, "val_split", None)
    if not share and not file and (earlier is None or "val_share" in named_settings(args)):
        return False
    if has_val:
        get_logger().warning("the data have a validation part, which is used: --val_share has no effect")
    return not has_val


def hold_out(part: Part, args: Namespace, earlier: Split | None) -> SplitParts:
    """The training and the validation part of a run.

    A run that resumes keeps its validation images: those added since are for training. With `val_split`, the images of
    an earlier run keep their side, and others are split as in a new run.

    Raises:
        OSError, ValueError: see `split_part` and `read_split`.
    """
    resumed, file = earlier is not None, getattr(args, "val_split", None)
    if not resumed and file:
        earlier = run_on_main(lambda: read_split(file))
    return split_part(
        part,
        getattr(args, "val_share", 0) or earlier.val_share,
        val_groups=getattr(args, "val_groups", "near"),
        earlier=earlier,
        added_train=resumed,
        max_pixels=getattr(args, "max_pixels", MAX_PIXELS),
    )


def held_out(part: Part, args: Namespace, earlier: Split | None) -> Part | None:
    """The validation images of the run that is evaluated, as far as the part has them.

    None, with a warning, if the part has no image of the run: these are other data. Without the split of the run, the
    images are split anew.
    """
    if getattr(args, "val_split", None) or earlier is None:
        return hold_out(part, args, None).val
    coco, _ = read_coco(part.source, part.images, report=False, read=part.read)
    names = {image["file_name"] for image in coco.dataset["images"]}
    if names.isdisjoint(earlier.sides):
        get_logger().warning(
            f"{printable(part.source)} has none of the images of the checkpoint's run: all of its images are evaluated"
        )
        return None
    missing = [name for name in earlier.val if name not in names]
    if len(missing) == len(earlier.val):
        raise ValueError(
            f"{printable(part.source)} has images of the checkpoint's run, and none of its {len(missing):,} validation "
            "images: pass --val_share 0 to evaluate all images, also those that it was trained on"
        )
    if missing:
        get_logger().warning(
            f"{len(missing):,} of the {len(earlier.val):,} validation images of the checkpoint's run are missing, such "
            f"as {printable(missing[0])}: the others are evaluated"
        )
    get_logger().info(f"evaluating the {len(earlier.val) - len(missing):,} validation images of the checkpoint's run")
    return side_of(part, earlier.val)
