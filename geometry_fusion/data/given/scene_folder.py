"""Given geometry in our own scene layout (geometry_fusion.data.scenes): depth/ and cameras.json.

Pictures and ids are not needed. A frame has geometry if it has both a depth map and a camera.
"""

from pathlib import Path

from geometry_fusion.data.given.layout import Layout, digest_of_files
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView


class _DepthAndCameras(Scene):
    """A scene of which only depth and cameras are read; its frames are those that have both."""

    def __init__(self, folder: Path):
        # Not Scene's own: that needs pictures.
        self.folder, self.has_ids = folder, False
        depths = {file.stem for file in folder.glob("depth/*.png")}
        self.stems = sorted(depths & self._cameras.keys())
        if not self.stems:
            raise InputError(
                f"{folder}: no frame has both depth/STEM.png and an entry in cameras.json; give "
                "files of equal stems (docs/data.md)"
            )

    def view(self, index: int) -> PosedView:
        """Depth and camera of a frame. Raises InputError where a file is damaged."""
        pose, k = self.camera(index)
        return PosedView(self.depth(index), pose, Lens(k))


def is_scene_folder(path: Path) -> bool:
    """Whether `path` is a folder with depth/ and cameras.json."""
    return (path / "cameras.json").is_file() and (path / "depth").is_dir()


def open_scene_folder(path: Path) -> Layout:
    """The geometry of a scene folder. Raises InputError where no frame has any."""
    scene = _DepthAndCameras(path)
    files = [path / "depth" / f"{stem}.png" for stem in scene.stems]
    digest = digest_of_files([path / "cameras.json", *files])
    return Layout("scene folder", path, scene.stems, len(scene), scene.view, digest)
