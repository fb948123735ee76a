"""Which frames SAM2's memory can still read, and forgetting the others: constant memory for videos of any length.

SAM2 (1.1.0, `SAM2Base._prepare_memory_conditioned_features`) reads of earlier frames: all conditioning frames, the
spatial memory of the last `num_maskmem - 1` frames (with a stride: of every `stride`-th one, and the last), and the
object pointers of the last `max_obj_ptrs - 1`. Tracking backwards reads the same on the other side of the frame.
"""

POINTER_ONLY = ("obj_ptr",)  # what is read of a frame whose spatial memory is out of reach


class Reach:
    """The rule for one model: SAM2's num_maskmem, memory_temporal_stride_for_eval and max_obj_ptrs_in_encoder."""

    def __init__(self, num_maskmem: int, stride: int, max_obj_ptrs: int):
        # How far from a frame the farthest one is whose memory, and whose pointer, tracking into it may read.
        # With a stride, the frames that count are its multiples: the nearest lies up to stride - 1 frames farther.
        self.memory = max(1, (num_maskmem - 2) * stride + 1 if stride > 1 else num_maskmem - 1)
        self.pointer = max_obj_ptrs - 1

    def readable(self, frame_idx: int, reverse: bool = False) -> range:
        """Frames of which tracking into `frame_idx` may read anything but what conditions it."""
        far = max(self.memory, self.pointer)
        return range(frame_idx + 1, frame_idx + far + 1) if reverse else range(frame_idx - far, frame_idx)

    def drop(self, state: dict, frame_idx: int, reverse: bool = False, way_back: bool = True) -> None:
        """Forget in an inference state what neither tracking on from `frame_idx` nor, with `way_back`, tracking
        backwards from the first conditioning frame can read. A click may correct the latest frame: its mask stays, and
        what tracking into it has read."""
        first = min(t for outputs in state["output_dict_per_obj"].values() for t in outputs["cond_frame_outputs"])
        for obj_idx, outputs in state["output_dict_per_obj"].items():
            conditioned, tracked = outputs["cond_frame_outputs"], outputs["non_cond_frame_outputs"]
            for frame in [t for t in tracked if t != frame_idx]:
                away = frame - frame_idx if reverse else frame_idx - frame  # below 0: still to come
                after = frame - first if way_back else self.memory + self.pointer
                if 0 <= away <= self.memory or 0 <= after < self.memory:
                    tracked[frame]["pred_masks"] = None
                elif 0 <= away <= self.pointer or 0 <= after < self.pointer:
                    tracked[frame] = {key: tracked[frame][key] for key in POINTER_ONLY}
                else:
                    del tracked[frame]
            seen = state["frames_tracked_per_obj"][obj_idx]
            for frame in [t for t in seen if t != frame_idx and t not in conditioned]:
                del seen[frame]
