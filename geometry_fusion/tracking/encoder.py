"""The first half of the video predictor: frames in, image features with geometry out.

`FusingEncoder` makes inference states. It encodes frames, several at once and ahead of tracking,
and fuses the geometry of each into SAM2's top-level feature.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import takewhile
from pathlib import Path

import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor

from geometry_fusion.choices import OBJECTS_AT_ONCE
from geometry_fusion.devices import free_memory
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import GeometrySource, NoGeometry
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.tracking.features import FrameFeatures
from geometry_fusion.tracking.lanes import MOST_LANES, EncodedFrames, Lane, Lanes
from geometry_fusion.tracking.object_batches import ObjectBatches, item_of
from geometry_fusion.tracking.pixels import LazyFrames
from geometry_fusion.tracking.places import Places, PlaceSettings
from geometry_fusion.tracking.state import TrackState
from geometry_fusion.types import Frames, GeometryFrame

FRAMES_AT_ONCE = 8  # the weights are read once per batch; larger ones delay masks and gain little


class KeepAppearance(torch.nn.Module):
    """The merger of the baseline arm: geometry is ignored."""

    def forward(self, appearance: Tensor, frames: Sequence[GeometryFrame]) -> Tensor:
        """Return `appearance` [B, C, h, w] itself."""
        return appearance


class FusingEncoder(SAM2VideoPredictor):
    """As SAM2VideoPredictor (sam2 1.1.0), plus: geometry fused into the top-level feature of every
    frame.

    Each inference state has its own geometry source. The encoder holds no state of a video, so that
    several sessions can use it at the same time. The merged feature replaces the one that memory
    attention, memory encoder and mask decoder read at stride 16; the features at stride 4 and 8
    stay SAM2's.

    objects_at_once, frames_at_once: batch sizes. 1 and 1 compute as SAM2 does; larger ones round
    sums in another order. `options` are SAM2's.
    """

    upstream = False  # whether prompts and memory are as in SAM2

    def __init__(
        self,
        *args,
        objects_at_once: int = OBJECTS_AT_ONCE,
        frames_at_once: int = FRAMES_AT_ONCE,
        **options,
    ):
        super().__init__(*args, **options)
        self.objects_at_once, self.frames_at_once = objects_at_once, frames_at_once
        # Fill batches with copies, so that a compiled image encoder meets only two batch sizes.
        self.fill_batches = False
        self.most_lanes = MOST_LANES
        self._make_source: Callable[[], GeometrySource] = NoGeometry
        self.merger: torch.nn.Module = KeepAppearance()
        self.place_settings: PlaceSettings | None = None

    def fuse(
        self,
        merger: torch.nn.Module | None,
        make_source: Callable[[], GeometrySource],
        places: PlaceSettings | None = None,
    ) -> None:
        """From now on, new inference states use geometry.

        merger: fuses it into features; None: features stay SAM2's. make_source: makes the geometry
        source of each state. places: objects are judged by their places (places.py).
        """
        merger = KeepAppearance() if merger is None else merger
        self.merger, self._make_source = merger.to(self.device).eval(), make_source
        self.place_settings = places

    @torch.inference_mode()
    def init_state(
        self,
        video_path: Frames | str | Path,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        keep: str = "all",
        geometry: GeometrySource | None = None,
        **options,
    ) -> TrackState:
        """As SAM2VideoPredictor.init_state, plus: `video_path` may be `Frames` or a folder.

        Frames are decoded on demand and always stay off the device. keep: which outputs the state
        holds, see `state.KEEPS`. geometry: the source of this video, in place of a new one of the
        predictor's. Raises InputError for a video file, because its frames cannot be read in any
        order.
        """
        if isinstance(video_path, str | Path):
            if not Path(video_path).is_dir():
                raise InputError(
                    f"{video_path}: no folder of frames; extract them: python main.py frames "
                    f"{video_path}"
                )
            video_path = FrameFolder(Path(video_path))
        lane = self._lane(self._make_source() if geometry is None else geometry)
        several = geometry is None and self._needs_lanes(lane.source)
        return TrackState(
            images=LazyFrames(video_path, self.image_size),
            frames=video_path,
            lanes=Lanes(
                lane,
                lambda: self._lane(self._make_source()),
                video_path,
                self.most_lanes if several else 1,
            ),
            batches=ObjectBatches(self.objects_at_once),
            device=self.device,
            storage_device=torch.device("cpu") if offload_state_to_cpu else self.device,
            keep=keep,
        )

    def _lane(self, source: GeometrySource) -> Lane:
        settings = self.place_settings
        return Lane(source, None if settings is None else Places(settings, source))

    def _needs_lanes(self, source: GeometrySource) -> bool:
        """Whether masks depend on the frame on which geometry begins."""
        if self.upstream or isinstance(source, NoGeometry):
            return False
        return source.anchored or not isinstance(self.merger, KeepAppearance)

    def _get_image_feature(self, inference_state: TrackState, frame_idx: int, batch_size: int):
        """As SAM2VideoPredictor._get_image_feature, plus: the frame's geometry is fused, once,
        before its feature is cached.
        """
        if frame_idx not in inference_state.features:
            self._encode(inference_state, [frame_idx])
        return super()._get_image_feature(inference_state, frame_idx, batch_size)

    def _look_ahead(
        self,
        state: TrackState,
        frame_idx: int,
        upcoming: Sequence[int],
        interruptions: Container[int],
        is_tracked: Callable[[int], bool] = lambda index: True,
    ) -> None:
        """Encode a frame and those after it in one batch, up to the next multiple of
        `frames_at_once`; begin to encode the next batch beside tracking, where that is allowed.

        is_tracked: whether any object of the current lane will be tracked into a frame.

        The end of a batch depends on frame numbers alone, so that a resumed run has the same
        batches, and the same features, as an uninterrupted one.
        """
        if self.frames_at_once == 1:
            return
        if frame_idx not in state.features:
            if frame_idx in state.ahead.indices:
                state.lanes.current.set_features(state.ahead.take(), ahead=True)
            else:
                self._encode_together(state, self._batch_from(frame_idx, upcoming))
        if state.ahead.allowed and not state.ahead.indices:
            self._begin_next(state, upcoming, interruptions, is_tracked)

    def _batch_from(self, first: int, upcoming: Iterable[int]) -> list[int]:
        """A frame and those after it, up to the next multiple of `frames_at_once`."""
        at_once = self.frames_at_once
        batch = first // at_once
        return [first, *takewhile(lambda index: index // at_once == batch, upcoming)]

    def _encode_together(self, state: TrackState, indices: list[int]) -> None:
        """As `_encode`, ahead of tracking. Where memory ends, frames are encoded one by one."""
        try:
            self._encode(state, indices, ahead=True)
        except torch.OutOfMemoryError:
            if len(indices) == 1:
                raise
            print(f"out of memory with {len(indices)} frames at once: continuing with one")
            self.frames_at_once = 1
            free_memory(self.device)

    def _begin_next(
        self,
        state: TrackState,
        upcoming: Sequence[int],
        interruptions: Container[int],
        is_tracked: Callable[[int], bool],
    ) -> None:
        """Begin to encode the batch after the one that is being tracked. As without threads, it
        begins with a frame into which an object is tracked.

        Not where a prompt takes effect before it or on its first frame, nor where a place waits for
        its points: geometry would be asked in another order than without threads.
        """
        left = iter(upcoming)
        tracked_before = []
        first = None
        for index in left:
            if index not in state.features and is_tracked(index):
                first = index
                break
            tracked_before.append(index)
        if first is None or (state.places is not None and state.places.any_waiting):
            return
        if any(index in interruptions for index in (*tracked_before, first)):
            return
        indices, lane = self._batch_from(first, left), state.lanes.current
        lane.ahead.begin(
            indices,
            self.device,
            lambda: self._appearance(state, lane, indices),
            lambda appearance: self._fused(state, lane, indices, appearance),
        )

    def _encode(self, state: TrackState, indices: list[int], ahead: bool = False) -> None:
        """Cache what SAM2 reads of each frame: its pixels and the image encoder's output, with
        geometry fused into it. ahead: see `Lane.set_features`.
        """
        lane = state.lanes.current
        lane.ahead.wait()  # the geometry source takes one batch after another
        appearance = self._appearance(state, lane, indices)  # first: memory may end here
        fused = self._fused(state, lane, indices, lambda: appearance)
        lane.set_features(fused, ahead=ahead)

    def _appearance(self, state: TrackState, lane: Lane, indices: list[int]) -> tuple[Tensor, dict]:
        """Pixels [n, 3, S, S] of frames, and the image encoder's output for them."""
        pixels = [state.pixels(index).to(self.device, non_blocking=True) for index in indices]
        num_copies = 0
        if self.fill_batches and len(indices) > 1:
            num_copies = self.frames_at_once - len(indices)
        images = torch.stack(pixels + num_copies * pixels[-1:]).float()
        is_shared = isinstance(state.frames, FrameFeatures)
        shared = state.frames if is_shared else state.lanes.shared
        if shared is not None:
            encoded = shared.encoded(indices, lambda: self.image_encoder(images), lane.ahead.charge)
            batch = self._with_high_resolution(encoded)
        else:
            batch = self.forward_image(images)
        return images, batch

    def _fused(
        self,
        state: TrackState,
        lane: Lane,
        indices: list[int],
        appearance_of: Callable[[], tuple[Tensor, dict]],  # see `_appearance`
    ) -> EncodedFrames:
        """Frames with their geometry fused into the image encoder's output."""
        source = lane.source
        geometry = source.push_all({index: state.frames[index] for index in indices})
        if state.keep != "all":
            # Reports render earlier frames of a clip.
            source.trim(renders=state.keep == "reachable")
        settled = source.settled
        images, batch = appearance_of()
        appearance = batch["backbone_fpn"][-1][: len(indices)]
        put_merged(batch, self.merger(appearance, [frame.to(self.device) for frame in geometry]))
        # Position codes depend on the grid alone and are as large as all features together: all
        # frames share one copy.
        batch["vision_pos_enc"] = [position[:1].clone() for position in batch["vision_pos_enc"]]
        outputs = [
            {
                name: value if name == "vision_pos_enc" else item_of(value, i)
                for name, value in batch.items()
            }
            for i in range(len(indices))
        ]
        features = {index: (images[i : i + 1], outputs[i]) for i, index in enumerate(indices)}
        return EncodedFrames(features, dict(zip(indices, geometry)), settled)

    def _with_high_resolution(self, encoded: dict) -> dict:
        """As the second half of SAM2Base.forward_image: project the features at stride 4 and 8 for
        the mask decoder. Changes `encoded` in place and returns it.
        """
        if self.use_high_res_features_in_sam:
            levels = encoded["backbone_fpn"]
            levels[0] = self.sam_mask_decoder.conv_s0(levels[0])
            levels[1] = self.sam_mask_decoder.conv_s1(levels[1])
        return encoded

    @torch.inference_mode()
    def reset_state(self, inference_state: TrackState) -> None:
        """As SAM2VideoPredictor.reset_state, plus: the next frame is the reference frame of a new
        geometry.
        """
        super().reset_state(inference_state)
        inference_state.forget_video()


def put_merged(backbone_out: dict, merged: Tensor) -> None:
    """Replace SAM2's top-level feature, in place, by the merged one [B, C, h, w]."""
    backbone_out["backbone_fpn"][-1] = backbone_out["vision_features"] = merged
