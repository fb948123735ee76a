"""Running COLMAP on a video: cameras and points from the pictures alone, by pycolmap on the CPU.

All pictures share one camera with one coefficient of distortion. Features are SIFT; short videos
are matched every frame with every other, longer ones with their neighbours. Random choices have a
fixed seed, and one thread keeps their order. It works where the camera moves sideways past things;
a camera that stands still or only turns gives nothing.
"""

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.data.given.colmap_model import ColmapModel, model_files, read_model
from geometry_fusion.data.scenes import rigid
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.mask_writer import is_turned, read_rgb, write_rgb
from geometry_fusion.io.temporary import working_folder

EXHAUSTIVE_UP_TO = 40  # frames; beyond, each is matched with its neighbours only
NEIGHBOURS = 10  # frames; and those 2, 4, 8, ... frames away
LONGEST_SIDE = 1600  # pixels at which features are found
MOST_FEATURES = 2048  # of a frame; matching takes time with its square
THREADS = 1  # with two, the same video gave another model in every run, despite the seed
SEED = 0
LEAST_SHARE = 0.2  # of frames that must be registered
LEAST_FRAMES = 3
LEAST_BASELINE = 0.02  # of the median depth, that the camera must move
INSTALL = "pip install 'geometry-fusion-3am[sfm]'"
STILL_CURE = (
    "it needs a camera that moves sideways past things with texture; use MUSt3R's geometry "
    "(without --geometry) for this video"
)


@dataclass(frozen=True)
class Result:
    """What COLMAP made of a video."""

    registered: int  # frames
    points: int
    baseline: float  # how far the camera moved, in median depths


def run_colmap(frames, out: Path, where: Path, say: Callable[[str], None]) -> Result:
    """Write a binary COLMAP model of a `FrameFolder` to the folder `out`, which must exist.

    where: what messages name. say: receives a line before each step. Raises InputError where
    pycolmap is missing, and where the camera moves too little.
    """
    pycolmap = _imported()
    with working_folder("3am-colmap") as folder:
        pictures, names = _upright(frames, folder)
        models_folder = folder / "models"
        models_folder.mkdir()
        steps = _Steps(pycolmap, pictures, names, folder / "database.db")
        say(f"finding features in {len(names)} frames")
        _interruptible(pycolmap, steps.extract)
        say("matching them")
        _interruptible(pycolmap, steps.match)
        say("placing cameras and points")
        models = _interruptible(pycolmap, lambda token: steps.reconstruct(models_folder, token))
        if not models:
            raise InputError(
                f"{where}: COLMAP could place no two of {len(names)} frames: the camera moves too "
                f"little; {STILL_CURE}"
            )
        best = max(models.values(), key=lambda model: model.num_reg_images())
        best.write_binary(str(out))
    assert model_files(out), out
    return _judged(read_model(out), len(names), where)


def _imported():
    """The package pycolmap, silent; InputError where it is missing."""
    try:
        import pycolmap
    except ImportError:
        raise InputError(f"--with colmap: pycolmap is missing; install it: {INSTALL}") from None
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        # Its logging library took SIGTERM, to print a stack; this takes it back.
        signal.signal(signal.SIGTERM, handler)
    return pycolmap


def _upright(frames, folder: Path) -> tuple[Path, list[str]]:
    """A folder with the frames as this project sees them, and their file names in it."""
    if not any(map(is_turned, frames.files)):
        return frames.path, [file.name for file in frames.files]
    turned = folder / "upright"
    turned.mkdir()
    names = [f"{file.stem}.png" for file in frames.files]
    for file, name in zip(frames.files, names):
        write_rgb(turned / name, read_rgb(file))
    return turned, names


class _Steps:
    """The three steps of a reconstruction, with their settings."""

    def __init__(self, pycolmap, pictures: Path, names: Sequence[str], database: Path):
        self._pycolmap, self._pictures, self._names = pycolmap, pictures, names
        self._database = database
        pycolmap.set_random_seed(SEED)

    def extract(self, token) -> None:
        options = self._pycolmap.FeatureExtractionOptions()
        options.num_threads, options.use_gpu = THREADS, False
        options.max_image_size = LONGEST_SIDE
        options.sift.max_num_features = MOST_FEATURES
        reader = self._pycolmap.ImageReaderOptions()
        reader.camera_model = "SIMPLE_RADIAL"
        self._pycolmap.extract_features(
            self._database,
            self._pictures,
            list(self._names),
            self._pycolmap.CameraMode.SINGLE,
            reader,
            options,
            self._pycolmap.Device.cpu,
            token,
        )

    def match(self, token) -> None:
        options = self._pycolmap.FeatureMatchingOptions()
        options.num_threads, options.use_gpu = THREADS, False
        verification = self._pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = SEED
        common = {
            "matching_options": options,
            "verification_options": verification,
            "device": self._pycolmap.Device.cpu,
            "cancellation_token": token,
        }
        if len(self._names) <= EXHAUSTIVE_UP_TO:
            self._pycolmap.match_exhaustive(self._database, **common)
            return
        pairing = self._pycolmap.SequentialPairingOptions()
        pairing.overlap, pairing.quadratic_overlap = NEIGHBOURS, True
        self._pycolmap.match_sequential(self._database, pairing_options=pairing, **common)

    def reconstruct(self, folder: Path, token) -> dict:
        options = self._pycolmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed = THREADS, SEED
        options.mapper.random_seed = options.triangulation.random_seed = SEED
        options.extract_colors = False
        options.min_model_size = LEAST_FRAMES
        return self._pycolmap.incremental_mapping(
            self._database, self._pictures, folder, options, cancellation_token=token
        )


def _interruptible(pycolmap, step: Callable):
    """Run a step in a thread, so that Ctrl-C is noticed while COLMAP works; its result."""
    token = pycolmap.CancellationToken()
    results, errors = [], []

    def run() -> None:
        try:
            results.append(step(token))
        except Exception as error:
            errors.append(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.2)
    except BaseException:
        token.cancel()
        worker.join()
        raise
    if errors:
        raise InputError(f"--with colmap: failed ({one_line(errors[0])[:300]}); try other frames")
    return results[0]


def _judged(model: ColmapModel, count: int, where: Path) -> Result:
    """The result; InputError where too few frames were placed, or the camera hardly moved."""
    images = [image for image in model.images if rigid(image.camera_to_world)]
    if len(images) < max(LEAST_FRAMES, LEAST_SHARE * count):
        raise InputError(
            f"{where}: COLMAP could place only {len(images)} of {count} frames: the camera moves "
            f"too little or too fast; {STILL_CURE}"
        )
    centres = np.stack([image.camera_to_world[:3, 3] for image in images])
    depths = []
    for image in images:
        seen = [model.points[i] for i in image.point_ids.tolist() if i in model.points]
        if seen:
            away = np.array(seen) - image.camera_to_world[:3, 3]
            depths.append(np.median(away @ image.camera_to_world[:3, 2]))
    spread = np.linalg.norm(centres - np.median(centres, 0), axis=1).max()
    baseline = float(spread / np.median(depths)) if depths else 0.0
    if not baseline >= LEAST_BASELINE:
        raise InputError(
            f"{where}: the camera moves by {baseline:.1%} of the distance to what it sees, too "
            f"little for depth; {STILL_CURE}"
        )
    return Result(len(images), len(model.points), baseline)
