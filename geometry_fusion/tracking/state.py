"""The state of one tracked video. The only file that names the keys of SAM2's inference state.

SAM2 reads its inference state by key, so `TrackState` is a dict; our code reads it by property and
method. Per object, by its index in SAM2's tables, it holds the outputs of prompted frames
(`PROMPTED`) and of tracked frames (`TRACKED`), each by frame number.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.tracking.ahead import EncodingAhead
from geometry_fusion.tracking.lanes import EncodedFrames, Lanes
from geometry_fusion.tracking.memory_bank import Memories
from geometry_fusion.tracking.object_batches import ObjectBatches
from geometry_fusion.tracking.places import Places
from geometry_fusion.types import Frames, GeometryFrame

PROMPTED, TRACKED = "cond_frame_outputs", "non_cond_frame_outputs"  # SAM2's names
# Which outputs of tracked frames a state holds:
#     all        every memory and mask, so that any frame can be prompted again
#     reachable  what one pass forwards and one backwards can read, and the masks of frames that
#                take theirs from the pass backwards
#     ahead      only what tracking forwards from the latest frame can read
KEEPS = ("all", "reachable", "ahead")
_SNAPSHOT_KEYS = (
    "obj_id_to_idx",
    "obj_idx_to_id",
    "obj_ids",
    "point_inputs_per_obj",
    "mask_inputs_per_obj",
    "constants",
    "output_dict_per_obj",
    "temp_output_dict_per_obj",
    "frames_tracked_per_obj",
)


class TrackState(dict):
    """SAM2's inference state of one video, with the video's frames, geometry and object batches.

    images: frames as SAM2's image encoder takes them, by frame number; frames: RGB uint8 by frame
    number; lanes: geometry that no other state uses; keep: one of `KEEPS`. Features, geometry and
    places are those of the current lane. Raises ValueError for another `keep`.
    """

    def __init__(
        self,
        *,
        images,
        frames: Frames,
        lanes: Lanes,
        batches: ObjectBatches,
        device: torch.device,
        storage_device: torch.device,
        keep: str = "all",
    ):
        if keep not in KEEPS:
            raise ValueError(f"keep {keep!r}: unknown; expected one of {', '.join(KEEPS)}")
        width, height = frames.size
        super().__init__(
            images=images,
            num_frames=len(frames),
            offload_video_to_cpu=True,
            offload_state_to_cpu=storage_device != device,
            video_height=height,
            video_width=width,
            device=device,
            storage_device=storage_device,
            point_inputs_per_obj={},
            mask_inputs_per_obj={},
            constants={},
            obj_id_to_idx=OrderedDict(),
            obj_idx_to_id=OrderedDict(),
            obj_ids=[],
            output_dict_per_obj={},
            temp_output_dict_per_obj={},
            frames_tracked_per_obj={},
        )
        self.frames, self.lanes, self.batches, self.keep = frames, lanes, batches, keep
        # What policies with a strategy per object remember (memory.py); None: the policy has none.
        self.memories: Memories | None = None
        # Mask logits [1, 1, h, w] of the latest tracked frame, by object index.
        self.latest_masks: list[Tensor] = []
        # Frames whose masks are final only after tracking backwards.
        self.answered_later: range = range(0)

    def __getitem__(self, key: str):
        # SAM2 reads features by this key.
        return self.lanes.current.features if key == "cached_features" else super().__getitem__(key)

    @property
    def object_ids(self) -> list[int]:
        """The user's ids of all objects, in the order of their first prompts."""
        return list(self["obj_ids"])

    def object_id(self, obj_idx: int) -> int:
        """The user's id of the object with an index in SAM2's tables."""
        return self["obj_idx_to_id"][obj_idx]

    @property
    def num_frames(self) -> int:
        """Number of frames of the video."""
        return self["num_frames"]

    @property
    def outputs(self) -> dict[int, dict[str, dict[int, dict]]]:
        """Object index -> `PROMPTED` or `TRACKED` -> frame number -> SAM2's output."""
        return self["output_dict_per_obj"]

    @property
    def prompted_frames(self) -> set[int]:
        """Frames with a prompt for any object, once SAM2's preflight has consolidated it."""
        return {t for outputs in self.outputs.values() for t in outputs[PROMPTED]}

    def prompts_of(self, obj_idx: int) -> set[int]:
        """Frames with a prompt for an object, those that SAM2 has yet to consolidate included."""
        return {
            *self.outputs[obj_idx][PROMPTED],
            *self["temp_output_dict_per_obj"][obj_idx][PROMPTED],
        }

    def note_prompt(self, object_id: int, index: int) -> None:
        """Record that an object was prompted on a frame: its place begins there."""
        if self.places is not None:
            self.places.prompted(object_id, index, self.frames[index])

    def object_scores(self, index: int) -> dict[int, float]:
        """Object id -> SAM2's object score on a frame (a logit), where it has an output there."""
        scores = {}
        for obj_idx, outputs in self.outputs.items():
            output = outputs[PROMPTED].get(index) or outputs[TRACKED].get(index) or {}
            # States that drop memories may have kept the mask alone.
            if "object_score_logits" in output:
                scores[self.object_id(obj_idx)] = float(output["object_score_logits"])
        return scores

    def scale_ages_as(self, num_frames: int) -> None:
        """Scale the ages of object pointers as in a video of at least this length. SAM2 divides
        them by a smaller number in shorter ones.
        """
        self["num_frames"] = max(self["num_frames"], num_frames)

    def pixels(self, index: int) -> Tensor:
        """A frame [3, S, S] as SAM2's image encoder takes it."""
        return self["images"][index]

    @property
    def features(self) -> dict[int, tuple[Tensor, dict]]:
        """Frame number -> its pixels and the image encoder's output with geometry fused in."""
        return self.lanes.current.features

    @property
    def geometry(self) -> GeometrySource:
        """The geometry source."""
        return self.lanes.current.source

    @property
    def geometry_settled(self) -> bool:
        """Whether later frames leave the points of these where they are."""
        return self.lanes.current.settled

    @property
    def places(self) -> Places | None:
        """The places of objects; None where they are not used."""
        return self.lanes.current.places

    @property
    def ahead(self) -> EncodingAhead[EncodedFrames]:
        """The next frames, encoded beside tracking."""
        return self.lanes.current.ahead

    def geometry_of(self, index: int) -> GeometryFrame | None:
        """The geometry that was fused into a frame; None where its features were dropped."""
        return self.lanes.current.geometry.get(index)

    def decisions(self) -> dict[int, str]:
        """Object id -> what its place decided in the latest frame; empty without places."""
        return {
            object_id: decision
            for lane in self.lanes
            if lane.places is not None
            for object_id, decision in lane.places.decisions.items()
        }

    def use_lane_of(self, obj_idx: int) -> None:
        """Make the lane of an object (by index) the current one."""
        self.lanes.current = self.lanes.of(self.object_id(obj_idx))

    def begin_frame(self) -> None:
        """Before a frame is tracked: forget removed objects and the last frame's decisions."""
        self.lanes.keep_only(self.object_ids)
        for lane in self.lanes:
            if lane.places is not None:
                lane.places.begin_frame(self.object_ids)

    def by_lane(self, outputs: Mapping[int, dict]) -> Iterator[dict[int, dict]]:
        """Objects (by index) with their outputs, lane by lane; each lane is the current one until
        the next.
        """
        for lane in self.lanes:
            self.lanes.current = lane
            own = self.in_current_lane()
            if members := {i: o for i, o in outputs.items() if i in own}:
                yield members

    def in_current_lane(self) -> list[int]:
        """The objects (by index) of the current lane."""
        of, current = self.lanes.of, self.lanes.current
        return [i for i in self.outputs if of(self.object_id(i)) is current]

    def drop_features(self) -> None:
        """Drop all cached features and the geometry fused into them."""
        self.lanes.drop_features()

    def is_settled(self, latest: int) -> bool:
        """Whether no frame after `latest` is encoded already, so that a snapshot can be taken."""
        return all(lane.is_settled(latest) for lane in self.lanes)

    def mark_tracked(self, index: int, objects: Iterable[int], reverse: bool) -> None:
        """Record, as SAM2 does, that objects (by index) have an output on a frame."""
        for obj_idx, tracked in self["frames_tracked_per_obj"].items():
            if obj_idx in objects or index in self.outputs[obj_idx][PROMPTED]:
                tracked[index] = {"reverse": reverse}

    def drop_tracked_marks(self, obj_idx: int, latest: int) -> None:
        """Drop the records of `mark_tracked`, except those of `latest` and prompted frames."""
        marks = self["frames_tracked_per_obj"][obj_idx]
        prompted = self.outputs[obj_idx][PROMPTED]
        for index in [t for t in marks if t != latest and t not in prompted]:
            del marks[index]

    def rewind(self) -> None:
        """Drop all tracked outputs and the geometry; prompts keep their masks."""
        for obj_idx, outputs in self.outputs.items():
            latest = self["temp_output_dict_per_obj"][obj_idx][PROMPTED]
            outputs[PROMPTED].update(latest)
            latest.clear()
            outputs[TRACKED].clear()
        for tracked in self["frames_tracked_per_obj"].values():
            tracked.clear()
        self.forget_video()

    def forget_video(self) -> None:
        """Drop all features, geometry and places. Prompts come again: `encode_memory_again`."""
        self.batches.clear()
        if self.memories is not None:
            self.memories.clear()
        first = {self.object_id(i): min(t) for i in self.outputs if (t := self.prompts_of(i))}
        self.lanes.begin_again(first)

    def encode_memory_again(self, index: int) -> None:
        """Let SAM2's next preflight encode the memory of prompts on a frame again, from the frame's
        features at that time. The masks stay, and places begin there as they did at first.
        """
        for obj_idx, outputs in self.outputs.items():
            if index in outputs[PROMPTED]:
                self.use_lane_of(obj_idx)
                self.note_prompt(self.object_id(obj_idx), index)
                output = {
                    **outputs[PROMPTED][index],
                    "maskmem_features": None,
                    "maskmem_pos_enc": None,
                }
                self["temp_output_dict_per_obj"][obj_idx][PROMPTED][index] = output

    def snapshot(self) -> dict:
        """Everything but the frames that is needed to resume tracking: plain values and tensors."""
        snapshot = {
            "state": {key: self[key] for key in _SNAPSHOT_KEYS},
            **self.lanes.snapshot(),
        }
        if self.memories is not None:
            snapshot["memories"] = self.memories.snapshot()
        return snapshot

    def restore(self, snapshot: dict) -> None:
        """Continue from the `snapshot` of a state with an equal predictor and geometry source."""
        self.update(_moved(snapshot["state"], self["device"]))
        lanes = {name: snapshot[name] for name in ("lanes", "lane_of")}
        self.lanes.restore(_moved(lanes, self["device"]))
        if self.memories is not None:
            self.memories.restore(_moved(snapshot["memories"], self["device"]))


def _moved(value, device: torch.device):
    """A copy of nested containers with all tensors on `device`; containers are not shared."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return type(value)((key, _moved(item, device)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, device) for item in value)
    return value
