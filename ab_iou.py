"""One prompt, two arms: SAM2 alone and SAM2 with geometry -> masks, videos and a report.

    python ab_iou.py --sample twins
    python ab_iou.py --point "180,296" --frames my_video.mp4 [--gt masks/]
    python ab_iou.py --point "180,296"            # on videos/frames, as `main.py frames` left them

Writes OUT/pred_masks_baseline/, OUT/output_segmented_baseline.mp4, the same for `geom` when that
arm runs, and OUT/ab_report/index.html; OUT is `videos`.
"""

import sys

from geometry_fusion.commands.console import parse, run_script
from geometry_fusion.interrupts import loading


def main(argv=None) -> int | None:
    """Run with these words of a command line. Raises InputError for bad input."""
    args = parse("ab", argv, __doc__)
    with loading():  # after parsing, so that help and errors come at once
        from geometry_fusion.commands.ab import run
    return run(args)


if __name__ == "__main__":
    sys.exit(run_script(main))
