"""Train and evaluate DETR: `python main.py --coco_path FOLDER --output_dir RUN`; all flags: `main.py --help`."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from datasets import build_dataset, get_coco_api_from_dataset
from datasets.coco_eval import CocoEvaluator, format_per_class
from datasets.loader import build_data_loader, set_epoch
from engine import evaluate, train_one_epoch
from models import build_model
from models.backbone import check_backbone, wanted_weights
from util.arguments import check_args, get_args_parser
from util.checkpoint import CheckpointError, load_checkpoint, load_weights, plain, save_checkpoint, write_json
from util.dist import get_rank, init_distributed_mode, is_main_process, resolve_device
from util.logging import append_json_line, get_logger, get_sha
from util.optim import build_lr_scheduler, build_optimizer
from util.seed import seed_everything

__all__ = ["get_args_parser", "main"]


def main(args: argparse.Namespace) -> None:
    """Train, or with `args.eval` evaluate, as the command line says.

    Raises:
        ValueError, OSError, ImportError, CheckpointError: settings, data, weights or a package cannot be used.
        FloatingPointError: training produced a number that is not finite.
    """
    log = get_logger()
    check_args(args)
    check_backbone(args.backbone, args.backbone_norm, wanted_weights(args))
    args.device = str(resolve_device(args.device))
    init_distributed_mode(args)
    seed_everything(args.seed + get_rank())
    log.info(f"git: {get_sha()}\n{args}")

    checkpoint = load_checkpoint(args.resume) if args.resume else {}
    dataset_val = build_dataset("val", args)
    dataset_train = None if args.eval else build_dataset("train", args)
    categories = settle_classes(args, checkpoint, [d for d in (dataset_train, dataset_val) if d is not None])

    model, criterion, postprocessors = build_model(args)
    model.to(memory_format=torch.channels_last)  # the same numbers, faster convolutions
    if checkpoint:
        load_weights(model, checkpoint["model"], args.resume)
    distributed_model = _distribute(model, args)
    log.info(f"parameters that train: {_count_trainable(model):,}; classes: {args.num_classes}; device: {args.device}")

    loading = {"num_workers": args.num_workers, "seed": args.seed, "pin_memory": args.device.startswith("cuda")}
    loader_val = build_data_loader(dataset_val, args.batch_size, train=False, **loading)
    base_ds = get_coco_api_from_dataset(dataset_val)
    CocoEvaluator(base_ds, ["bbox"], backend=args.evaluator)  # refuses now what it would refuse after an epoch

    def run_evaluation() -> tuple[dict[str, Any], CocoEvaluator]:
        device = torch.device(args.device)
        parts = (distributed_model, criterion, postprocessors, loader_val, base_ds, device, args.output_dir)
        stats, evaluator = evaluate(*parts, evaluator=args.evaluator, print_freq=args.print_freq)
        log.info(f"evaluated at batch size {args.batch_size}\n{format_per_class(evaluator.per_class())}")
        return stats, evaluator

    if args.eval:
        _, evaluator = run_evaluation()
        save_evaluation(args, evaluator, checkpoint.get("epoch"), ["eval.pth"])
        return

    loader_train = build_data_loader(dataset_train, args.batch_size, train=True, **loading)
    optimizer = build_optimizer(model, args)
    lr_scheduler, per_step = build_lr_scheduler(optimizer, args, len(loader_train))
    best = restore(args, checkpoint, optimizer, lr_scheduler)

    log.info(f"start training: epochs {args.start_epoch} to {args.epochs - 1}, {len(loader_train)} steps each")
    start = time.time()
    for epoch in range(args.start_epoch, args.epochs):
        set_epoch(loader_train, epoch)
        steps_left = None if args.max_steps is None else args.max_steps - epoch * len(loader_train)
        train_stats = train_one_epoch(
            distributed_model,
            criterion,
            loader_train,
            optimizer,
            torch.device(args.device),
            epoch,
            args.clip_max_norm,
            lr_scheduler=lr_scheduler if per_step else None,
            max_steps=steps_left,
            print_freq=args.print_freq,
        )
        if not per_step:
            lr_scheduler.step()
        last = epoch + 1 == args.epochs or (steps_left is not None and steps_left <= len(loader_train))

        record = {f"train_{name}": value for name, value in train_stats.items()}
        is_best = False
        if last or (epoch + 1) % args.eval_every == 0:
            test_stats, evaluator = run_evaluation()
            kept = [f"eval/{epoch:03}.pth"] if epoch % 50 == 0 else []
            save_evaluation(args, evaluator, epoch, ["eval/latest.pth", *kept])
            record |= {f"test_{name}": value for name, value in test_stats.items()}
            is_best = test_stats["coco_eval_bbox"][0] > best
            best = max(best, test_stats["coco_eval_bbox"][0])
        record |= {"epoch": epoch, "n_parameters": _count_trainable(model)}
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": lr_scheduler.state_dict(),
            "epoch": epoch,
            "args": plain(args),
            "categories": categories,
            "best_ap": best,
        }
        save_epoch(args, state, record, is_best)
        _report_pace(epoch + 1 - args.start_epoch, args.epochs - args.start_epoch, time.time() - start)
        if last:
            break
    log.info(f"Training time {timedelta(seconds=int(time.time() - start))}")


def settle_classes(args: argparse.Namespace, checkpoint: dict[str, Any], datasets: list) -> list[dict[str, Any]]:
    """Decide `args.num_classes`: the command line's, else the checkpoint's, else the annotations'.

    Returns:
        The categories ({"id", "name"}) that the predictions mean: the data's, or the checkpoint's where it has them.

    Raises:
        ValueError: the data holds a category that the model has no class for.
    """
    if args.num_classes is None:
        if checkpoint:
            args.num_classes = _classes_in(checkpoint, args.resume)
        else:
            args.num_classes = max(dataset.num_classes for dataset in datasets)
    for dataset in datasets:
        dataset.check_classes(args.num_classes)
    return checkpoint.get("categories") or datasets[0].categories


def _classes_in(checkpoint: dict[str, Any], source: str) -> int:
    head = checkpoint.get("model", {}).get("class_embed.weight")
    if head is None:
        raise CheckpointError(f"{source} holds no DETR (no class_embed.weight under 'model'): pass another file")
    return head.shape[0] - 1


def restore(
    args: argparse.Namespace,
    checkpoint: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Continue optimizer, schedule and epoch where a checkpoint holds them; weights alone start at `--start_epoch`.

    Returns:
        The best AP so far, -1 if there was none.

    Raises:
        ValueError: the checkpoint has finished all epochs.
    """
    if not {"optimizer", "lr_scheduler", "epoch"} <= checkpoint.keys():
        return -1.0
    optimizer.load_state_dict(checkpoint["optimizer"])
    lr_scheduler.load_state_dict(checkpoint["lr_scheduler"])
    args.start_epoch = checkpoint["epoch"] + 1
    if args.start_epoch >= args.epochs:
        raise ValueError(
            f"{args.resume} has finished epoch {checkpoint['epoch']} and --epochs is {args.epochs}: nothing is left to "
            "train; raise --epochs, or pass --eval to evaluate"
        )
    return checkpoint.get("best_ap", -1.0)


def save_epoch(args: argparse.Namespace, state: dict[str, Any], record: dict[str, Any], is_best: bool) -> None:
    """`checkpoint.pth`, the kept ones, the best one, and a line in `log.txt`."""
    if not args.output_dir or not is_main_process():
        return
    folder, epoch = Path(args.output_dir), state["epoch"]
    save_checkpoint(folder / "checkpoint.pth", state)
    if (epoch + 1) % args.lr_drop == 0 or (epoch + 1) % args.checkpoint_every == 0:
        save_checkpoint(folder / f"checkpoint{epoch:04}.pth", state)
    if is_best:
        save_checkpoint(folder / "checkpoint_best.pth", state)
    append_json_line(folder / "log.txt", record)


def save_evaluation(args: argparse.Namespace, evaluator: CocoEvaluator, epoch: int | None, files: list[str]) -> None:
    """Precision and recall arrays in `files`, the 12 numbers and each class's AP in `eval/per_class.json`."""
    if not args.output_dir or not is_main_process():
        return
    folder = Path(args.output_dir)
    result = evaluator.coco_eval["bbox"]
    arrays = {name: result.eval[name] for name in ("precision", "recall", "scores")}
    for file in files:
        save_checkpoint(folder / file, {**arrays, "counts": list(result.eval["counts"])})
    summary = {"epoch": epoch, "batch_size": args.batch_size, "stats": result.stats.tolist()}
    write_json(folder / "eval" / "per_class.json", summary | {"per_class": evaluator.per_class()})


def _distribute(model: nn.Module, args: argparse.Namespace) -> nn.Module:
    if not args.distributed:
        return model
    return DistributedDataParallel(model, device_ids=None if args.gpu is None else [args.gpu])


def _count_trainable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _report_pace(done: int, total: int, seconds: float) -> None:
    left = timedelta(seconds=int(seconds / done * (total - done)))
    get_logger().info(f"{done} of {total} epochs in {timedelta(seconds=int(seconds))}, about {left} to go")


def run(argv: list[str] | None = None) -> int:
    """The command: parse, run, and turn what a user can mend into one sentence on standard error.

    Returns:
        The exit code: 0, or 1 after an error.
    """
    parser = argparse.ArgumentParser(
        description="Train and evaluate DETR.",
        parents=[get_args_parser()],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    try:
        main(parser.parse_args(argv))
    except (ValueError, OSError, ImportError, CheckpointError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(run())
