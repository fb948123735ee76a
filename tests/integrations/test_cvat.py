"""CVAT's tracking function against the types of cvat-sdk, called as its agent calls it."""

import importlib

import cv2
import cvat_sdk.auto_annotation as cvat
import numpy as np
import pytest
from cvat_sdk.masks import decode_mask, encode_mask
from PIL import Image

from geometry_fusion.assets import SAMPLES
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import read_mask
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.types import Prompt
from tests.io.exports.world import iou

FIRST, COUNT = 2, 5  # of the frames of the sample that are tracked
SIZE = (256, 256)


class Context(cvat.TrackingFunctionShapeContext):
    def __init__(self, kind: str):
        self._kind = kind

    @property
    def original_shape_type(self) -> str:
        return self._kind


@pytest.fixture(scope="module")
def function():
    """As `cvat-cli --function-module` loads it."""
    return importlib.import_module("geometry_fusion.integrations.cvat").create(sam2="tiny")


@pytest.fixture(scope="module")
def clip():
    """(frames, true masks) of the sample twins, from its prompted frame on."""
    frames = [image for image, _ in zip(VideoFile(SAMPLES / "twins/video.mp4"), range(8))]
    gt = sorted((SAMPLES / "twins/gt").glob("*.png"))
    chosen = range(FIRST, FIRST + COUNT)
    return [frames[i] for i in chosen], [read_mask(gt[i]) for i in chosen]


def follow(function, clip, kind: str, points: list[float]) -> list[cvat.TrackableShape | None]:
    """The shapes that the function answers for the frames after the first."""
    images = [function.preprocess_image(Context(kind), Image.fromarray(frame)) for frame in clip[0]]
    shape = cvat.TrackableShape(type=kind, points=points)
    state = function.init_tracking_state(Context(kind), images[0], shape)
    return [function.track(Context(kind), image, state) for image in images[1:]]


def test_spec_is_that_of_a_tracking_function(function):
    assert isinstance(function.spec, cvat.TrackingFunctionSpec)
    assert function.spec.supported_shape_types == {"mask", "polygon", "rectangle"}


def test_masks_are_followed_as_the_tracker_follows_them(function, clip):
    frames, truth = clip
    shapes = follow(function, clip, "mask", encode_mask(truth[0]))
    assert [shape.type for shape in shapes] == ["mask"] * (COUNT - 1)
    masks = [decode_mask(s.points, image_width=SIZE[0], image_height=SIZE[1]) for s in shapes]
    assert min(iou(mask, true) for mask, true in zip(masks, truth[1:])) > 0.8
    tracked = list(function._tracker.track(frames, Prompt(mask=truth[0])))[1:]
    # Batches of frames round differently: single pixels on edges.
    assert min(iou(mask, frame.ids > 0) for mask, frame in zip(masks, tracked)) > 0.97


def test_polygons_are_followed_as_polygons(function, clip):
    outline = cv2.findContours(
        clip[1][0].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )[-2][0]
    shapes = follow(function, clip, "polygon", (outline.reshape(-1) + 0.5).tolist())
    for shape, true in zip(shapes, clip[1][1:]):
        assert shape.type == "polygon" and len(shape.points) >= 6
        # CVAT's coordinates are corners of pixels: its pixel 0 is from 0 to 1.
        points = np.reshape(shape.points, (-1, 2))
        assert points.min() > 0 and points.max() < 256
        drawn = cv2.fillPoly(np.zeros(SIZE, np.uint8), [(points - 0.5).astype(np.int32)], 1)
        assert iou(drawn > 0, true) > 0.75


def test_boxes_are_followed_as_boxes(function, clip):
    def box(mask):
        rows, columns = np.nonzero(mask)
        return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]

    shapes = follow(function, clip, "rectangle", [float(edge) for edge in box(clip[1][0])])
    for shape, true in zip(shapes, clip[1][1:]):
        assert shape.type == "rectangle"
        np.testing.assert_allclose(shape.points, box(true), atol=6)


def test_an_object_that_leaves_is_none_and_the_state_of_others_stays(function, clip):
    """Two shapes on the same frames, one of which is covered by black afterwards."""
    frames, truth = clip
    mask = encode_mask(truth[0])
    states = [
        function.init_tracking_state(
            Context("mask"), frames[0], cvat.TrackableShape(type="mask", points=mask)
        )
        for _ in range(2)
    ]
    black = [function.track(Context("mask"), frames[0] * 0, states[0]) for _ in range(3)]
    assert black[-1] is None
    shown = function.track(Context("mask"), frames[1], states[1])
    decoded = decode_mask(shown.points, image_width=SIZE[0], image_height=SIZE[1])
    assert iou(decoded, truth[1]) > 0.8


def test_shapes_without_area_are_refused(function, clip):
    for kind, points in (("rectangle", [5.0, 5.0, 5.0, 9.0]), ("mask", [1, 0, 0, 0, 0])):
        with pytest.raises(InputError):
            follow(function, clip, kind, points)
    with pytest.raises(cvat.BadFunctionError):
        follow(function, clip, "cuboid", [1.0] * 16)
