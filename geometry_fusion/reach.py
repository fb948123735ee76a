"""Which frames SAM2's memory reads, and dropping the others: constant memory for videos of any
length.

SAM2 (1.1.0, `SAM2Base._prepare_memory_conditioned_features`) reads of earlier frames: all prompted
frames, the spatial memory of the last `num_maskmem - 1` frames (with a stride: of every `stride`-th
frame, and the last one), and the object pointers of the last `max_obj_ptrs - 1` frames. Tracking
backwards reads the same on the other side of the frame.

SAM2 reads these frames whatever they were tracked from: frames tracked before a correction, frames
of the forward pass while it tracks backwards, prompts that tracking has not reached yet. Here a
prompt is the truth (`Reach.memory_of`):

* forwards, an object reads its prompts up to the current frame, and the frames tracked since the
latest of them; * backwards, it reads all its prompts, and the frames tracked backwards from the
nearest later one; * a frame between two prompts is answered from the nearer one
(`answered_backwards`).
"""

from collections.abc import Iterable

POINTER_ONLY = ("obj_ptr",)  # what is read of a frame whose spatial memory is out of reach
PROMPTED, TRACKED = "cond_frame_outputs", "non_cond_frame_outputs"  # SAM2's names


def answered_backwards(prompted: Iterable[int], frame_idx: int) -> bool:
    """Whether tracking backwards from a later prompt answers a frame: where no earlier prompt is
    nearer to it.
    """
    later = min((t - frame_idx for t in prompted if t > frame_idx), default=None)
    earlier = min((frame_idx - t for t in prompted if t < frame_idx), default=None)
    return later is not None and (earlier is None or later <= earlier)


class Reach:
    """The rule for one model: SAM2's num_maskmem, memory_temporal_stride_for_eval and
    max_obj_ptrs_in_encoder.

    upstream: read what SAM2 reads, in place of the rule above.
    """

    def __init__(self, num_maskmem: int, stride: int, max_obj_ptrs: int, upstream: bool = False):
        # How far from a frame the farthest one is whose memory, and whose pointer, tracking into it
        # may read. With a stride, the frames that count are its multiples: the nearest lies up to
        # stride - 1 frames farther.
        self.memory = max(1, (num_maskmem - 2) * stride + 1 if stride > 1 else num_maskmem - 1)
        self.pointer = max_obj_ptrs - 1
        self.upstream = upstream

    def readable(self, frame_idx: int, reverse: bool = False) -> range:
        """Frames of which tracking into `frame_idx` may read anything but what conditions it."""
        far = max(self.memory, self.pointer)
        if reverse:
            return range(frame_idx + 1, frame_idx + far + 1)
        return range(frame_idx - far, frame_idx)

    def memory_of(
        self, outputs: dict[str, dict], frame_idx: int, reverse: bool = False
    ) -> dict[str, dict]:
        """What tracking one object into `frame_idx` reads of its outputs (by kind, then by
        frame).
        """
        if self.upstream:
            return outputs
        prompted, tracked = outputs[PROMPTED], outputs[TRACKED]
        if reverse:
            until = min(
                (t for t in prompted if t > frame_idx), default=frame_idx + self.pointer + 1
            )
            since = frame_idx
        else:
            since = max((t for t in prompted if t < frame_idx), default=-1)
            until = frame_idx
            # Without an earlier prompt there is nothing else to read than later ones.
            prompted = {t: out for t, out in prompted.items() if t <= frame_idx} or prompted
        near = self.readable(frame_idx, reverse)
        recent = {t: tracked[t] for t in near if since < t < until and t in tracked}
        return {PROMPTED: prompted, TRACKED: recent}

    def drop(
        self, state: dict, frame_idx: int, reverse: bool = False, answer_later: Iterable[int] = ()
    ) -> None:
        """Drop from an inference state what tracking on from `frame_idx` cannot read.

        A click may correct the latest frame: its mask stays, and what tracking into it has read.
        Masks of the frames in `answer_later` stay as well, until tracking backwards has passed
        them.
        """
        for obj_idx, outputs in state["output_dict_per_obj"].items():
            prompted, tracked = outputs[PROMPTED], outputs[TRACKED]
            for frame in [t for t in tracked if t != frame_idx]:
                distance = frame - frame_idx if reverse else frame_idx - frame
                kept = self._kept(tracked[frame], distance)
                if frame in answer_later and not (reverse and frame > frame_idx):
                    kept["pred_masks"] = _on_cpu(tracked[frame]["pred_masks"])
                if kept:
                    tracked[frame] = kept
                else:
                    del tracked[frame]
            seen = state["frames_tracked_per_obj"][obj_idx]
            for frame in [t for t in seen if t != frame_idx and t not in prompted]:
                del seen[frame]

    def _kept(self, output: dict, distance: int) -> dict:
        """What of the output of a frame `distance` frames behind may still be read, masks left
        out.
        """
        if not 0 <= distance <= max(self.memory, self.pointer) or "obj_ptr" not in output:
            return {}
        if distance <= self.memory and "maskmem_features" in output:
            return {**output, "pred_masks": None}
        return {key: output[key] for key in POINTER_ONLY}


def _on_cpu(mask):
    return None if mask is None else mask.cpu()
