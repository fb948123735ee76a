"""Speed and memory of our predictor against upstream SAM2's, in one run, as ratios:  make bench

Both predictors carry the same weights and track the same click through the bundled sample, alternating. Upstream holds
all frames in memory, ours decodes them when they are needed.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ROUNDS = 3


def track(kind: str, folder: str) -> float:
    """Seconds for one pass over the sample."""
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    import sam2_model
    from geometry_fusion.frame_folder import FrameFolder

    if kind == "ours":
        predictor, video = sam2_model.build_predictor("tiny", device="cpu"), FrameFolder(Path(folder))
    else:
        predictor, video = sam2_model.build_sam2("tiny", target=SAM2VideoPredictor), folder
    began = time.perf_counter()
    with torch.inference_mode():
        state = predictor.init_state(video)
        predictor.add_new_points_or_box(state, 0, 1, points=np.array([[158.0, 97.0]], np.float32), labels=[1])
        frames = sum(1 for _ in predictor.propagate_in_video(state))
    return (time.perf_counter() - began) / frames


def main() -> None:
    if len(sys.argv) == 3:  # one measurement in a process of its own, so that peak memory is its own
        seconds = track(*sys.argv[1:])
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    from main import getFrames

    results: dict[str, list[tuple[float, float]]] = {"ours": [], "upstream": []}
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames"
        getFrames(ROOT / "videos/samples/return/video.mp4", frames, every=1)
        for _ in range(ROUNDS):
            for kind in results:
                command = [sys.executable, __file__, kind, str(frames)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, megabytes = map(float, done.stdout.split())
                results[kind].append((seconds, megabytes))
    for kind, rows in results.items():
        seconds, megabytes = (statistics.median(column) for column in zip(*rows))
        print(f"{kind:<9} {1000 * seconds:7.1f} ms a frame   {megabytes:7.0f} MB peak")
    ratio = [
        statistics.median(column) for column in zip(*((a / c, b / d) for (a, b), (c, d) in zip(*results.values())))
    ]
    print(f"ours / upstream: time {ratio[0]:.2f}, memory {ratio[1]:.2f} (medians of {ROUNDS} pairs)")


if __name__ == "__main__":
    main()
