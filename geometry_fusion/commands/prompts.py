"""Turns prompt arguments (commands/arguments.py) into `Prompt`s; docs/prompts.md describes them."""

import argparse
import sys
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.io.parsing import parse_json
from geometry_fusion.io.prompt_files import masks_by_id, read_prompts
from geometry_fusion.tracking.prompt_checks import hidden_objects
from geometry_fusion.types import Prompt


def prompts_from_arguments(args: argparse.Namespace) -> list[Prompt]:
    """All prompts of a command line, one per object and frame.

    Prints a warning where two objects are prompted in the same place. Raises InputError where there
    is no prompt, or more than one for an object and frame.
    """
    prompts = _prompts_of_flags(args)
    if not prompts and args.prompts:
        raise InputError(
            f"--prompts {args.prompts}: the list is empty; see docs/prompts.md for its form"
        )
    if not prompts:
        raise InputError(
            'no prompt: give --point "x,y", --box, --mask or --prompts '
            "(python main.py pick finds a point)"
        )
    seen = set()
    for prompt in prompts:
        if (prompt.frame, prompt.object_id) in seen:
            raise InputError(
                f"{prompt.source}: object {prompt.object_id} has two prompts on frame "
                f"{prompt.frame}; keep one"
            )
        seen.add((prompt.frame, prompt.object_id))
    if warning := hidden_objects(prompts):
        print(f"warning: {warning}", file=sys.stderr)
    return prompts


def _prompts_of_flags(args: argparse.Namespace) -> list[Prompt]:
    """Prompts of --prompts, --mask, then clicks and boxes, joined by object."""
    prompts = read_prompts(args.prompts) if args.prompts else []
    if args.mask:
        prompts += [
            Prompt(args.prompt_frame, object_id, mask=mask, source=f"--mask {args.mask}")
            for object_id, mask in masks_by_id(args.mask).items()
        ]
    points, negatives = args.point or [], args.negative or []
    boxes = dict(args.box or [])
    if len(boxes) < len(args.box or []):
        raise InputError("--box: two boxes for one object; number them, like --box 2:10,20,90,80")
    for object_id in sorted({i for i, _ in (*points, *negatives)} | boxes.keys()):
        prompts.append(
            Prompt(
                args.prompt_frame,
                object_id,
                points=tuple(xy for i, xy in points if i == object_id),
                negatives=tuple(xy for i, xy in negatives if i == object_id),
                box=boxes.get(object_id),
                source=f"prompt of object {object_id}",
            )
        )
    return prompts


def mask_files(args: argparse.Namespace) -> list[Path]:
    """The mask files that the prompts of a command line name.

    Call it after `prompts_from_arguments`, which checks the form of --prompts.
    """
    entries = parse_json(Path(args.prompts).read_bytes(), args.prompts) if args.prompts else []
    named = [
        Path(args.prompts).parent / entry["mask"]
        for entry in entries
        if entry.get("mask") is not None
    ]
    return [*([args.mask] if args.mask else []), *named]
