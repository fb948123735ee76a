"""Does an object move? Decides from frames, the baseline's masks and geometry (docs/motion.md).

    watch = MotionWatch()
    for index in ...:
        watch.add(index, image, ids, geometry)
    watch.decisions()[object_id].dynamic

The path of a frame: `watch.py` (which frames are paired) -> `views.py` (a frame at working size)
-> `flow.py` (where pixels went) -> `pairs.py` (how much an object moved against its surroundings,
by `rigid.py` with geometry or `epipolar.py` without) -> `decision.py` (votes).
"""

from geometry_fusion.motion.decision import Decision
from geometry_fusion.motion.settings import MotionSettings
from geometry_fusion.motion.watch import MotionWatch, decide

__all__ = ["Decision", "MotionSettings", "MotionWatch", "decide"]
