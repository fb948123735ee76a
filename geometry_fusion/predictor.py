"""The video predictor: SAM2's own, reading frames when they are needed and fusing geometry into
their features.

`GeometryVideoPredictor` keeps SAM2's public API (`init_state`, `add_new_points_or_box`,
`add_new_mask`, `propagate_in_video`, `reset_state`, `remove_object`). Without geometry, or with an
untrained merger, its masks of one object are SAM2's bit for bit: both arms of a comparison run this
one class.

What SAM2 lacks for long videos and many objects: a few frames are encoded at once, ahead of
tracking; objects whose memories hold the same frames are tracked as one batch
(geometry_fusion/object_batches.py); and a state made with another `keep` than "all" holds what
tracking can still read and nothing else, however long the video is (geometry_fusion/reach.py).

And what SAM2 does wrong when there are several prompts, unless a predictor is built with
`upstream=True`: every prompt conditions what follows; an object is tracked from its own prompts on,
in both directions, not from the first prompt of any object; and memory never runs against time
(geometry_fusion/reach.py).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor
from tqdm import tqdm

from geometry_fusion.devices import free_memory, give_back_freed_memory
from geometry_fusion.errors import InputError
from geometry_fusion.frame_folder import FrameFolder
from geometry_fusion.geometry import GeometrySource, NoGeometry
from geometry_fusion.object_batches import BATCH_LIMIT, ObjectBatches, item_of
from geometry_fusion.reach import PROMPTED, TRACKED, Reach, answered_backwards
from geometry_fusion.small_masks import keep_small_parts, resized_mask
from geometry_fusion.types import GeometryFrame

# SAM2's normalisation of RGB in 0..1 (sam2.utils.misc.load_video_frames).
IMAGE_MEAN = torch.tensor([0.485, 0.456, 0.406])
IMAGE_STD = torch.tensor([0.229, 0.224, 0.225])
FRAMES_AT_ONCE = 8  # weights are read once for all of them; more wait longer and gain little
TIDY_EVERY = 512  # frames of a long video; taking the pages again costs 0.3% of their time
KEEPS = (
    "all",
    "reachable",
    "ahead",
)  # what an inference state holds of the frames that were tracked


def normalise(rgb: np.ndarray) -> np.ndarray:
    """RGB uint8 or float 0..255 [..., 3] -> float32 as SAM2's image encoder expects it."""
    # By torch, in place: the same numbers as numpy's in a third of the time.
    return torch.tensor(rgb, dtype=torch.float32).div_(255).sub_(IMAGE_MEAN).div_(IMAGE_STD).numpy()


class LazyFrames:
    """Frames as SAM2's inference state holds them, decoded on access: [i] -> [3, S, S] float32.

    Frames may bring `prepared`, a dict of what `square` made of some of them before.
    """

    def __init__(self, frames, image_size: int):
        self._frames, self._size = frames, image_size

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        known = getattr(self._frames, "prepared", {}).get(index)
        return square(self._frames[index], self._size) if known is None else known


def square(image: np.ndarray, size: int) -> Tensor:
    """RGB uint8 [H, W, 3] -> [3, size, size] float32 as SAM2's image encoder expects it."""
    # PIL's default filter, because sam2.utils.misc.load_video_frames uses it: other filters change
    # masks.
    resized = Image.fromarray(image).resize((size, size))
    return torch.from_numpy(normalise(np.asarray(resized))).permute(2, 0, 1)


def _memory_in_the_features_precision(module, args, kwargs):
    return args, {**kwargs, "memory": kwargs["memory"].to(kwargs["curr"][0].dtype)}


class KeepAppearance(torch.nn.Module):
    """The merger of the baseline arm."""

    def forward(self, appearance: Tensor, frames: Sequence[GeometryFrame]) -> Tensor:
        return appearance


class GeometryVideoPredictor(SAM2VideoPredictor):
    """As SAM2VideoPredictor (sam2 1.1.0), plus: geometry fused into the top-level feature of every
    frame.

    Each inference state has a geometry source of its own. The merged feature replaces what memory
    attention, memory encoder and mask decoder read at stride 16; the features at stride 4 and 8
    stay SAM2's. `init_state` also takes frames that are decoded on demand.

    And one crash less: SAM2 keeps memory in bf16, which object pointers beside it promote to fp32.
    An object that is prompted later than another has none on earlier frames, and fp32 attention
    then refused its memory.
    """

    def __init__(
        self,
        *args,
        objects_at_once: int = BATCH_LIMIT,
        frames_at_once: int = FRAMES_AT_ONCE,
        upstream: bool = False,  # prompts and memory as in SAM2
        **kwargs,
    ):
        super().__init__(*args, add_all_frames_to_correct_as_cond=not upstream, **kwargs)
        # 1 is SAM2's way: with more, sums are rounded in another order.
        self.objects_at_once, self.frames_at_once = objects_at_once, frames_at_once
        self.fill_batches = (
            False  # with copies, so that the image encoder sees batches of two sizes only
        )
        self.memory_attention.register_forward_pre_hook(
            _memory_in_the_features_precision, with_kwargs=True
        )
        self._make_source: Callable[[], GeometrySource] = NoGeometry
        self.merger: torch.nn.Module = KeepAppearance()
        self.source: GeometrySource | None = None  # of the latest `init_state`
        self.upstream = upstream
        memory = (
            self.num_maskmem,
            self.memory_temporal_stride_for_eval,
            self.max_obj_ptrs_in_encoder,
        )
        self.reach = Reach(*memory, upstream=upstream)

    def fuse(self, merger: torch.nn.Module, make_source: Callable[[], GeometrySource]) -> None:
        """From now on, new inference states fuse what a fresh `make_source()` knows through
        `merger`.
        """
        self.merger, self._make_source = merger.to(self.device).eval(), make_source

    @torch.inference_mode()
    def init_state(
        self,
        video_path,
        offload_video_to_cpu=False,
        offload_state_to_cpu=False,
        keep: str = "all",
        **options,
    ) -> dict:
        """As SAM2VideoPredictor.init_state; `video_path` may also be RGB frames with `len`, `[i]`,
        `.size`.

        Frames are decoded on demand and always stay off the device. keep: "all" keeps every frame's
        memory and mask, so that any frame can be prompted again; "ahead" what tracking on from the
        latest frame can read, "reachable" also masks of frames that are answered on the way back.
        Raises InputError for a video file where geometry is fused: it needs the frames as they were
        filmed, in any order.
        """
        if keep not in KEEPS:
            raise ValueError(f"keep {keep!r}: unknown; expected one of {', '.join(KEEPS)}")
        self.source = source = self._make_source()
        if not hasattr(video_path, "size"):
            if isinstance(self.merger, KeepAppearance) and keep == "all":
                state = super().init_state(
                    video_path, offload_video_to_cpu, offload_state_to_cpu, **options
                )
                batches = ObjectBatches(self.objects_at_once)
                return {**state, "keep": keep, "answer_later": range(0), "batches": batches}
            if not Path(video_path).is_dir():
                raise InputError(
                    f"{video_path}: no folder of frames; extract them: python main.py frames "
                    f"{video_path}"
                )
            video_path = FrameFolder(Path(video_path))
        width, height = video_path.size
        return {
            "images": LazyFrames(video_path, self.image_size),
            "frames": video_path,
            "geometry": source,
            "keep": keep,
            "answer_later": range(
                0
            ),  # frames whose masks are put together while tracking backwards
            "batches": ObjectBatches(self.objects_at_once),
            "num_frames": len(video_path),
            "offload_video_to_cpu": True,
            "offload_state_to_cpu": offload_state_to_cpu,
            "video_height": height,
            "video_width": width,
            "device": self.device,
            "storage_device": torch.device("cpu") if offload_state_to_cpu else self.device,
            "point_inputs_per_obj": {},
            "mask_inputs_per_obj": {},
            "cached_features": {},
            "encoded_ahead": [],  # those of them that came in one batch
            "constants": {},
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
            "output_dict_per_obj": {},
            "temp_output_dict_per_obj": {},
            "frames_tracked_per_obj": {},
        }

    @torch.inference_mode()
    def propagate_in_video(
        self,
        inference_state,
        start_frame_idx=None,
        max_frame_num_to_track=None,
        reverse=False,
        progress=True,
    ) -> Iterator[tuple[int, list[int], Tensor]]:
        """As SAM2VideoPredictor.propagate_in_video, plus: objects in batches, and of a state that
        does not keep all, the rest is dropped on the way. progress: show a bar.

        Backwards, the default start is the last prompted frame. Forwards, an object has no mask
        before its first prompt; backwards, frames that are nearer to an earlier prompt keep the
        masks that they have.
        """
        self.propagate_in_video_preflight(inference_state)
        if inference_state["keep"] == "reachable" and not reverse:
            inference_state["answer_later"] = range(max(self.prompted_frames(inference_state)))
        order = self._tracking_order(
            inference_state, start_frame_idx, max_frame_num_to_track, reverse
        )
        for number, frame_idx in enumerate(
            tqdm(order, desc="propagate in video", disable=not progress), 1
        ):
            logits = self.track_frame(inference_state, frame_idx, reverse, order[number:])
            yield frame_idx, inference_state["obj_ids"], logits

    def _tracking_order(
        self, inference_state, start: int | None, at_most: int | None, reverse: bool
    ) -> range:
        """Frames as SAM2VideoPredictor.propagate_in_video visits them. The default start is the
        first prompted frame, backwards the last one."""
        if start is None:
            prompted = self.prompted_frames(inference_state)
            start = max(prompted) if reverse and not self.upstream else min(prompted)
        at_most = inference_state["num_frames"] if at_most is None else at_most
        if not reverse:
            return range(start, min(start + at_most, inference_state["num_frames"] - 1) + 1)
        return range(start, max(start - at_most, 0) - 1, -1) if start > 0 else range(0)

    @torch.inference_mode()
    def track_frame(
        self, inference_state, frame_idx: int, reverse: bool = False, upcoming: Sequence[int] = ()
    ) -> Tensor:
        """Track all objects into one frame: mask logits [objects, 1, H, W] at the video's size.

        upcoming: what will be tracked next, in order, as far as the frames are at hand. Prompts
        must have been consolidated (`propagate_in_video_preflight`), as `propagate_in_video` does.
        """
        outputs = inference_state["output_dict_per_obj"]
        masks = {i: self._answer_at_hand(outputs[i], frame_idx, reverse) for i in outputs}
        masks = {
            i: mask.to(self.device, non_blocking=True)
            for i, mask in masks.items()
            if mask is not None
        }
        memories = {
            i: self.reach.memory_of(outputs[i], frame_idx, reverse)
            for i in outputs
            if i not in masks
        }
        if memories:
            self._look_ahead(inference_state, frame_idx, upcoming)
        # SAM2 may be told to let the masks of a batch exclude each other in memory; one by one
        # nothing is excluded.
        alone = self.non_overlap_masks_for_mem_enc
        batches, readable = inference_state["batches"], self.reach.readable(frame_idx, reverse)
        for members in batches.groups(memories, readable, alone):
            masks.update(
                self._track_members(inference_state, frame_idx, members, memories, reverse)
            )
        for obj_idx, tracked in inference_state["frames_tracked_per_obj"].items():
            if obj_idx in memories or frame_idx in outputs[obj_idx][PROMPTED]:
                tracked[frame_idx] = {"reverse": reverse}
        self._drop(inference_state, frame_idx, reverse)
        ordered = [masks[i] for i in range(len(masks))]
        joined = torch.cat(ordered) if len(ordered) > 1 else ordered[0]
        return self._get_orig_video_res_output(inference_state, joined)[1]

    def _answer_at_hand(
        self, outputs: dict[str, dict], frame_idx: int, reverse: bool
    ) -> Tensor | None:
        """Mask logits [1, 1, h, w] of an object where it need not be tracked into a frame, else
        None.
        """
        prompted, tracked = outputs[PROMPTED], outputs[TRACKED]
        if frame_idx in prompted:
            return prompted[frame_idx]["pred_masks"]
        if self.upstream:
            return None
        if (
            answered_backwards(prompted, frame_idx)
            if reverse
            else any(t < frame_idx for t in prompted)
        ):
            return None
        # A prompt in the other direction is nearer: what tracking from it answered holds.
        answer = tracked.get(frame_idx, {}).get("pred_masks")
        if answer is None and not reverse:
            side = self.image_size // 4
            answer = torch.full((1, 1, side, side), NO_OBJ_SCORE)
        return answer

    def _drop(self, inference_state, frame_idx: int, reverse: bool) -> None:
        """After a frame was tracked: drop what this state does not keep."""
        keep = inference_state["keep"]
        if keep == "all":
            return
        self.reach.drop(inference_state, frame_idx, reverse, inference_state["answer_later"])
        inference_state["batches"].drop(inference_state["output_dict_per_obj"])
        if frame_idx % TIDY_EVERY == TIDY_EVERY - 1:
            give_back_freed_memory(self.device)
        inference_state["geometry"].trim(renders=keep == "reachable")  # reports show them

    @staticmethod
    def prompted_frames(inference_state) -> set[int]:
        """Frames on which any object was prompted."""
        return {
            t
            for outputs in inference_state["output_dict_per_obj"].values()
            for t in outputs[PROMPTED]
        }

    @torch.inference_mode()
    def rewind(self, inference_state) -> None:
        """Drop everything that was tracked and the geometry, so that tracking starts anew; prompts
        keep their masks.

        Their memory is encoded when tracking comes to their frame (`remember_again`), from the
        features of then.
        """
        for obj_idx, outputs in inference_state["output_dict_per_obj"].items():
            latest = inference_state["temp_output_dict_per_obj"][obj_idx][PROMPTED]
            outputs[PROMPTED].update(latest)
            latest.clear()
            outputs[TRACKED].clear()
        for tracked in inference_state["frames_tracked_per_obj"].values():
            tracked.clear()
        inference_state["batches"].clear()
        inference_state["geometry"].reset()
        inference_state["cached_features"].clear()
        inference_state["encoded_ahead"].clear()

    @torch.inference_mode()
    def remember_again(self, inference_state, frame_idx: int) -> None:
        """After `rewind`: encode the memory of prompts on a frame from its present features. Their
        masks stay.
        """
        for obj_idx, outputs in inference_state["output_dict_per_obj"].items():
            if frame_idx in outputs[PROMPTED]:
                output = {
                    **outputs[PROMPTED][frame_idx],
                    "maskmem_features": None,
                    "maskmem_pos_enc": None,
                }
                inference_state["temp_output_dict_per_obj"][obj_idx][PROMPTED][frame_idx] = output
        self.propagate_in_video_preflight(inference_state)

    @torch.inference_mode()
    def add_new_mask(self, inference_state, frame_idx, obj_id, mask):
        """As SAM2VideoPredictor.add_new_mask, plus: masks that are small at the model's size do not
        vanish.
        """
        if not self.upstream:
            mask = resized_mask(torch.as_tensor(mask, dtype=torch.bool), self.image_size)
        return super().add_new_mask(inference_state, frame_idx, obj_id, mask)

    def _use_mask_as_output(self, backbone_features, high_res_features, mask_inputs):
        """As SAM2Base._use_mask_as_output, plus: masks that are small at the model's size do not
        vanish.
        """
        outputs = super()._use_mask_as_output(backbone_features, high_res_features, mask_inputs)
        if self.upstream:
            return outputs
        _, high_res, ious, low_res, *rest = outputs
        low_res = keep_small_parts(low_res, mask_inputs)
        return low_res, high_res, ious, low_res, *rest

    def _prepare_memory_conditioned_features(
        self, frame_idx, *args, output_dict, track_in_reverse=False, **kwargs
    ):
        """As SAM2Base._prepare_memory_conditioned_features, plus: reads what `Reach.memory_of`
        gives.
        """
        output_dict = self.reach.memory_of(output_dict, frame_idx, track_in_reverse)
        return super()._prepare_memory_conditioned_features(
            frame_idx, *args, output_dict=output_dict, track_in_reverse=track_in_reverse, **kwargs
        )

    def _track_members(
        self,
        inference_state,
        frame_idx,
        members: list[int],
        memories: dict[int, dict],
        reverse: bool,
    ) -> dict[int, Tensor]:
        """One batch of objects; keeps their outputs, returns their mask logits [1, 1, h, w]."""
        batches, per_object = inference_state["batches"], inference_state["output_dict_per_obj"]
        outputs = batches.joined(memories, members, self.reach.readable(frame_idx, reverse))
        try:
            joined, logits = self._run_single_frame_inference(
                inference_state=inference_state,
                output_dict=outputs,
                frame_idx=frame_idx,
                batch_size=len(members),
                is_init_cond_frame=False,
                point_inputs=None,
                mask_inputs=None,
                reverse=reverse,
                run_mem_encoder=True,
            )
        except torch.OutOfMemoryError:
            halves = batches.halved(members)  # raises InputError where there is nothing to halve
            free_memory(self.device)
            first, second = (
                self._track_members(inference_state, frame_idx, half, memories, reverse)
                for half in halves
            )
            return first | second
        for obj_idx, out in batches.split(frame_idx, members, joined).items():
            per_object[obj_idx][TRACKED][frame_idx] = out
        return {obj_idx: logits[i : i + 1] for i, obj_idx in enumerate(members)}

    def _get_image_feature(self, inference_state, frame_idx, batch_size):
        """As SAM2VideoPredictor._get_image_feature, plus: fuse this frame's geometry once, before
        caching.
        """
        if "geometry" in inference_state and frame_idx not in inference_state["cached_features"]:
            cached, ahead = inference_state["cached_features"], inference_state["encoded_ahead"]
            kept = {index: cached[index] for index in ahead}  # tracking will come to them
            inference_state["cached_features"] = kept | self._features(inference_state, [frame_idx])
        return super()._get_image_feature(inference_state, frame_idx, batch_size)

    def _look_ahead(self, inference_state, frame_idx: int, upcoming: Sequence[int]) -> None:
        """Encode a frame and those that follow in one batch, up to the next multiple of
        `frames_at_once`.

        Where a batch ends depends on frame numbers alone: however a video is cut into runs, its
        features are the same.
        """
        at_once = self.frames_at_once
        if (
            at_once == 1
            or "geometry" not in inference_state
            or frame_idx in inference_state["cached_features"]
        ):
            return
        together = [
            frame_idx,
            *takewhile(lambda index: index // at_once == frame_idx // at_once, upcoming),
        ]
        try:
            inference_state["cached_features"] = self._features(inference_state, together)
            inference_state["encoded_ahead"] = together
        except torch.OutOfMemoryError:
            if len(together) == 1:
                raise
            print(f"out of memory with {len(together)} frames at once: going on with one")
            self.frames_at_once = 1
            free_memory(self.device)

    def _features(self, inference_state, frames: list[int]) -> dict[int, tuple[Tensor, dict]]:
        """Of each frame what SAM2 caches: its pixels and the image encoder's output, geometry fused
        into it.
        """
        pixels = [
            inference_state["images"][index].to(self.device, non_blocking=True) for index in frames
        ]
        filling = self.frames_at_once - len(frames) if self.fill_batches and len(frames) > 1 else 0
        images = torch.stack(pixels + filling * pixels[-1:]).float()
        whole = self.forward_image(images)
        known = inference_state["geometry"].push_all(
            {index: inference_state["frames"][index] for index in frames}
        )
        appearance = whole["backbone_fpn"][-1][: len(frames)]
        put_merged(whole, self.merger(appearance, [frame.to(self.device) for frame in known]))
        # Positions are those of the grid, for every frame the same, and as large as all features
        # together.
        whole["vision_pos_enc"] = [position[:1].clone() for position in whole["vision_pos_enc"]]
        outputs = [
            {
                name: value if name == "vision_pos_enc" else item_of(value, i)
                for name, value in whole.items()
            }
            for i in range(len(frames))
        ]
        return {index: (images[i : i + 1], outputs[i]) for i, index in enumerate(frames)}

    @torch.inference_mode()
    def reset_state(self, inference_state) -> None:
        """As SAM2VideoPredictor.reset_state, plus: the next frame is the reference of a new
        geometry.
        """
        super().reset_state(inference_state)
        inference_state["batches"].clear()
        if "geometry" in inference_state:
            inference_state["geometry"].reset()
            inference_state["cached_features"].clear()
            inference_state["encoded_ahead"].clear()


def put_merged(backbone_out: dict, merged: Tensor) -> None:
    """Let the merged feature stand where SAM2's top-level feature stood."""
    backbone_out["backbone_fpn"][-1] = backbone_out["vision_features"] = merged
