"""What a live session recorded, as the clip of its session."""

import json
from fractions import Fraction
from pathlib import Path

from geometry_fusion.io.frame_folder import FRAMES_JSON
from geometry_fusion.ui.results import ARMS
from geometry_fusion.ui.session_files import write_aside
from geometry_fusion.ui.sources import Cut, opened


def keep_recorded(session, folder: Path, name: str, pace: float = 0.0) -> None:
    """Make the frames that a live session recorded the session's source; its marks and results
    stay. Without any, the session has no source. pace: frames per second; 0: by the files' times.
    """
    count = max(len(session.results.frames(arm)) for arm in ARMS)
    for file in folder.glob("*.jpg"):  # frames whose masks were not written before a crash
        if int(file.stem) >= count:
            file.unlink()
    if not count:
        session.new_source(None)
        return
    rate = Fraction(min(max(pace or pace_of(folder), 0.1), 120.0)).limit_denominator(1001)
    about = json.dumps({"frame_rate": str(rate), "source": name})
    write_aside(folder / FRAMES_JSON, about.encode())
    session.replace_source(opened("live", name, folder, Cut()))


def pace_of(folder: Path) -> float:
    """Frames per second at which the files of a folder were written."""
    times = sorted(file.stat().st_mtime for file in folder.glob("*.jpg"))
    seconds = times[-1] - times[0]
    return (len(times) - 1) / seconds if seconds > 0 else 10.0
