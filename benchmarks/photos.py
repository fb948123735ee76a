"""Compares photos in random order under random names with the same frames as a video.

    python benchmarks/photos.py --seeds 100060:100064 --photos 30

The object that most photos of a room show is prompted by its mask, on its largest view. Arms:
`video` tracks the frames in their own order, both ways; the others see copies with random names.
Prints positive IoU: the mean over photos that show the object. Validation rooms only.
"""

import argparse
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np

from geometry_fusion import Prompt, load
from geometry_fusion.data.scenes import Scene
from geometry_fusion.photos.collection import PhotoSettings, segment_photos
from geometry_fusion.photos.pictures import photo_files, read_photo
from geometry_fusion.tracking.memories.neighbours import NeighbourSettings

ROOMS = Path("data/rooms/test")
LEAST_AREA = 0.002  # of the picture, for a photo to show the object
ARMS = {
    "photos": PhotoSettings(),
    "no second look": PhotoSettings(second_look=None),
    "prompt only": PhotoSettings(second_look=None, memory=NeighbourSettings("prompt_only")),
    "similarity": PhotoSettings(order="similarity", second_look=None),
    "random, fifo": PhotoSettings(order="name", second_look=None, memory=NeighbourSettings("fifo")),
}


class SomeFrames:
    """Every n-th frame of a scene, as `Frames`."""

    def __init__(self, scene: Scene, indices: list[int]):
        self._scene, self._indices, self.size = scene, indices, scene.size

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._scene.rgb(self._indices[index])


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two masks, of which one is not empty."""
    return float((one & other).sum() / (one | other).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="100060:100064", help="FIRST:END of validation rooms")
    parser.add_argument("--photos", type=int, default=30)
    parser.add_argument("--rooms", type=Path, default=ROOMS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    args = parser.parse_args()
    tracker = load("tiny")
    rows = []
    for seed in range(*map(int, args.seeds.split(":"))):
        rows.append(scores_of(tracker, args, args.rooms / f"room_{seed}"))
        print(f"room {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in rows[-1].items()), flush=True)
    means = {arm: np.mean([row[arm] for row in rows]) for arm in rows[0]}
    print("mean: " + ", ".join(f"{arm} {value:.3f}" for arm, value in means.items()))


def scores_of(tracker, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Arm -> positive IoU of the object that most photos show."""
    scene = Scene(folder)
    indices = np.linspace(0, len(scene) - 1, args.photos).astype(int).tolist()
    ids = [scene.instance(index) for index in indices]
    areas = {i.id: [int((image == i.id).sum()) for image in ids] for i in scene.objects}
    chosen = max(areas, key=lambda i: np.count_nonzero(np.array(areas[i]) > 0))
    truth = [image == chosen for image in ids]
    prompted = int(np.argmax(areas[chosen]))
    shown = [at for at, mask in enumerate(truth) if mask.mean() >= LEAST_AREA]
    frames = SomeFrames(scene, indices)
    scores = {}
    session = tracker.session("full")
    session.add(Prompt(prompted, mask=truth[prompted]))
    masks = {frame.index: frame.ids == 1 for frame in session.track(frames)}
    scores["video"] = float(np.mean([iou(masks[at], truth[at]) for at in shown]))
    names = [f"{number:08x}" for number in random.Random(0).sample(range(2**32), len(indices))]
    with tempfile.TemporaryDirectory() as temporary:
        for index, name in zip(indices, names):
            file = next((folder / "rgb").glob(f"{index:06d}.*"))
            shutil.copy(file, Path(temporary) / f"{name}{file.suffix}")
        files = photo_files([Path(temporary)])
        photos = [read_photo(file) for file in files]
        at_of = {name: at for at, name in enumerate(names)}
        place = [file.stem for file in files].index(names[prompted])
        for arm in args.arms:
            prompt = Prompt(place, mask=truth[prompted])
            answer = segment_photos(tracker, photos, [prompt], ARMS[arm])
            masks = {
                at_of[photo.path.stem]: answer.ids(number) == 1
                for number, photo in enumerate(answer.photos)
            }
            scores[arm] = float(np.mean([iou(masks[at], truth[at]) for at in shown]))
    return scores


if __name__ == "__main__":
    main()
