"""Words that options and settings can be, and default numbers that several commands share.

Imports nothing, so that a command line can show its help without loading torch.
"""

DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "fp32", "bf16")
MODES = ("stream", "full")  # of tracking: once in constant memory, or backwards as well
ARMS = ("auto", "sam2", "3am")  # of `segment`: SAM2 alone, or with geometry
# Of `instances`: as `ab_iou.py` and the evaluations have them.
INSTANCE_ARMS = ("sam2", "3am", "places", "control", "oracle")
# How geometry is used: the trained merger, places without training, both, or not at all.
GEOMETRY_MODES = ("auto", "merger", "places", "both", "off")
# What an object reads of its past (docs/memory.md).
MEMORY_POLICIES = ("fifo", "dam", "tree", "motion", "coverage")
# In which order photos are processed (docs/photos.md).
PHOTO_ORDERS = ("overlap", "similarity", "name", "given")
FALLBACKS = ("auto", "never", "always")  # to SAM2 alone, for objects that move
# Frames between two times at which keyframes join MUSt3R's memory (docs/geometry.md).
KEYFRAME_INTERVAL = 4
OBJECTS_AT_ONCE = 16  # beyond, memory grows and the time per object does not shrink
# Formats that masks are exported to (geometry_fusion/io/exports), and how they hold areas.
EXPORT_FORMATS = (
    "coco",
    "ytvis",
    "davis",
    "yolo",
    "cvat",
    "labelme",
    "png-alpha",
    "prores",
    "vp9",
    "gif",
)
EXPORT_SHAPES = ("auto", "masks", "polygons")
