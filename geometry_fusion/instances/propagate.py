"""Propagation: tracks are opened on keyframes and followed forwards to the end of the video.

All open tracks go through SAM2 together, in batches. Their masks are not made to exclude each
other. A track whose thing is out of view stays open, because it may come back. An interrupted run
continues at its last keyframe (`SegmentStore`), with the same masks.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from geometry_fusion.errors import InputError
from geometry_fusion.instances.proposals import Proposal, new_proposals
from geometry_fusion.instances.segments import Segment, SegmentStore, tracks_of
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.tracks import MaskTrack
from geometry_fusion.io.mask_reader import LARGEST_ID
from geometry_fusion.io.stream import Source
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Prompt, TrackedFrame

# Frame and picture -> its proposals, in the order in which they become tracks.
Propose = Callable[[int, np.ndarray], list[Proposal]]


def propagate(
    session: StreamSession,
    open_at: Callable[[int], Source],
    keyframes: Sequence[int],
    propose: Propose,
    settings: InstanceSettings,
    store: SegmentStore,
) -> list[MaskTrack]:
    """Track everything that is proposed on keyframes; returns the tracks, by id.

    session: fresh, of a predictor that encodes one frame at a time, so that it can be stopped at
    every keyframe. open_at: opens the video at a frame. Raises InputError for more tracks than a
    session holds.
    """
    segments = store.segments
    if store.is_complete:
        return tracks_of(segments)
    begin = segments[-1].stop if segments else 0
    if begin:
        session.restore(store.snapshot)
    waiting = [keyframe for keyframe in keyframes if keyframe >= begin]
    number = sum(len(segment.opened) for segment in segments)
    with (
        open_at(begin) as source,
        tqdm(
            initial=begin, total=source.num_frames, unit="frame", desc="track", file=sys.stderr
        ) as bar,
    ):
        segment = Segment(begin)
        for frame in session.track(source):
            bar.update()
            segment.add(frame.index, frame.object_ids, masks_of(frame))
            if waiting and waiting[0] <= frame.index:
                number += _open_tracks(session, segment, frame, number, propose, settings)
                waiting = [keyframe for keyframe in waiting if keyframe > frame.index]
            if waiting and waiting[0] <= frame.index + 1:
                store.add(segment, session.snapshot())
                segment = Segment(frame.index + 1)
        store.add(segment, None)
    return tracks_of(store.segments)


def session_for_tracks(tracker) -> StreamSession:
    """A session of a `models.Tracker` for `propagate`: the tracks of every keyframe have geometry
    that begins there.
    """
    tracker.predictor.most_lanes = LARGEST_ID
    return tracker.session()


def masks_of(frame: TrackedFrame) -> list[np.ndarray]:
    """The mask [H, W] bool of every object of a frame; they may overlap."""
    if frame.logits is None:
        return []
    return list((frame.logits[:, 0] > 0).cpu().numpy())


def _open_tracks(
    session: StreamSession,
    segment: Segment,
    frame: TrackedFrame,
    number: int,
    propose: Propose,
    settings: InstanceSettings,
) -> int:
    """Open a track for every proposal that no running track explains; returns how many.

    number: of tracks so far.
    """
    proposals = propose(frame.index, frame.image)
    opened = new_proposals(proposals, segment.masks_at(frame.index), settings)
    if number + len(opened) > LARGEST_ID:
        raise InputError(
            f"frame {frame.index}: more than {LARGEST_ID} tracks; let keyframes be farther apart, "
            "or accept surer proposals only (settings stride, predicted_iou, stability)"
        )
    for place, proposal in enumerate(opened, number + 1):
        session.add(Prompt(frame.index, place, mask=proposal.mask, source="proposal"))
        segment.open(frame.index, place, proposal)
    return len(opened)
