"""A pool of generated rooms, renewed while a training runs, and of scenes that stay.

Room number i of a pool is drawn from seed `first_seed + i`, so that the pool of a step is a pure
function of its settings and of the step, and a resumed run draws what it would have drawn.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from geometry_fusion.data.generated.clip import GeneratedClips
from geometry_fusion.data.generated.damage import damaged
from geometry_fusion.data.generated.layered import SHAPES, LayeredWorld
from geometry_fusion.data.generated.rooms import RoomWorld
from geometry_fusion.data.generated.textures import TextureBank
from geometry_fusion.data.scenes import Scene
from geometry_fusion.devices import can_compile
from geometry_fusion.geometry.cameras import resized_intrinsics

SHAPE_SHARES = (0.35, 0.2, 0.25, 0.1, 0.1)  # how often each of SHAPES is drawn
# Rooms from which compiling pays: half a minute once; a CPU then draws 20 frames in 8 s, not 80.
WORTH_COMPILING = 2
LAYERED_SEED = 1 << 40  # seeds of layered clips are far from those of rooms


class ClipPool:
    """Rooms of the generated world and scenes on one device.

    rooms: most generated rooms at a time; start: how many there are at step 0; fresh: new ones per
    step. frames: of a room. size: pixels of a side. scenes: folders that are read once and stay.
    compiles: whether ray casting is compiled; None where that pays.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        rooms: int,
        start: int,
        fresh: float,
        frames: int,
        size: int,
        textures: int = 768,
        texture_size: int = 256,
        moving_share: float = 0.2,
        first_seed: int = 1_000_000_000,
        scenes: Sequence[Scene] = (),
        compiles: bool | None = None,
    ):
        bank = TextureBank(first_seed % 9973, device, textures, texture_size)
        self._device, self._size, self._frames = device, size, frames
        if compiles is None:
            compiles = rooms >= WORTH_COMPILING and can_compile(device)
        self._rooms = RoomWorld(bank, compile=compiles)
        self._layered = LayeredWorld(bank, first_seed % 9973)
        self._most, self._start, self._fresh = rooms, start, fresh
        self._first_seed, self._moving_share = first_seed, moving_share
        self._window: dict[int, GeneratedClips] = {}
        self.scenes = [entry for s in scenes for entry in [scene_clip(s, size, device)] if entry]

    def at_step(self, step: int) -> None:
        """Bring the pool to the state that it has at a step of a training."""
        end = self._start + int(step * self._fresh)
        begin = max(0, end - self._most)
        for number in [n for n in self._window if not begin <= n < end]:
            del self._window[number]
        for number in range(begin, end):
            if number not in self._window:
                self._window[number] = self.room(self._first_seed + number)

    @property
    def rooms(self) -> list[GeneratedClips]:
        """The generated rooms of the current step, one clip each."""
        return list(self._window.values())

    @torch.no_grad()
    def room(self, seed: int) -> GeneratedClips:
        """The room of a seed, damaged as a camera would damage it."""
        rng = torch.Generator(device=self._device).manual_seed(seed)
        shape = SHAPES[np.random.default_rng([seed, 11]).choice(len(SHAPES), p=SHAPE_SHARES)]
        clips = self._rooms.clips(rng, seed, self._frames, self._size, shape, self._moving_share)
        clips.rgb = damaged(rng, clips.rgb)
        return clips

    @torch.no_grad()
    def layered(self, seed: int, count: int, frames: int) -> GeneratedClips:
        """`count` fresh layered clips of one picture shape."""
        rng = torch.Generator(device=self._device).manual_seed(LAYERED_SEED + seed)
        shape = SHAPES[np.random.default_rng([seed, 12]).choice(len(SHAPES), p=SHAPE_SHARES)]
        clips = self._layered.clips(rng, count, frames, self._size, shape)
        clips.rgb = damaged(rng, clips.rgb)
        return clips


def scene_clip(scene: Scene, size: int, device: torch.device) -> GeneratedClips | None:
    """All frames of a scene folder as one clip, squashed to `size` pixels a side.

    None where it has ids beyond 63. Without depth or cameras the geometry is None.
    """
    if scene.areas.shape[1] > 64:
        return None
    width, height = scene.size
    twins = torch.zeros(1, 64, dtype=torch.int64)
    for thing in scene.objects:
        if thing.twin_of:
            twins[0, thing.id] = thing.twin_of
    rgb, ids, depth, poses, intrinsics = [], [], [], [], []
    has_depth = (scene.folder / "depth").is_dir() and (scene.folder / "cameras.json").exists()
    for index in range(len(scene)):
        rgb.append(cv2.resize(scene.rgb(index), (size, size), interpolation=cv2.INTER_AREA))
        instance = scene.instance(index).clip(0).astype(np.uint8)
        ids.append(cv2.resize(instance, (size, size), interpolation=cv2.INTER_NEAREST))
        if has_depth:
            z = scene.depth(index)
            depth.append(cv2.resize(z, (size, size), interpolation=cv2.INTER_NEAREST))
            pose, k = scene.camera(index)
            poses.append(pose)
            intrinsics.append(resized_intrinsics(k, (size / width, size / height)))

    def stacked(arrays: list[np.ndarray], dtype: torch.dtype) -> torch.Tensor | None:
        if not arrays:
            return None
        return torch.from_numpy(np.stack(arrays)[None]).to(device, dtype)

    return GeneratedClips(
        stacked([np.moveaxis(picture, -1, 0) for picture in rgb], torch.uint8),
        stacked(ids, torch.uint8),
        twins.to(device),
        (width, height),
        stacked(depth, torch.float16),
        stacked(poses, torch.float32),
        stacked(intrinsics, torch.float32),
        torch.zeros(1, dtype=torch.bool, device=device),
    )
