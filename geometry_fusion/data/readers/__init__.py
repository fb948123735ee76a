"""Readers of published datasets and of captures that people make: one module per format.

Every module has

    find(root) -> list[str]            sorted names of the scenes under `root`; InputError if none
    open_scene(root, name) -> Source   one of these scenes

A reader pairs files by the frame number in their names, never by position. It leaves out poses that
are not rigid (`rigid_poses`) and lists in `notes` what it left out. Axes and units are those of
geometry_fusion.data.scenes; ids stay as the source has them, unless the module says otherwise. No
reader writes anything or runs code from a file.
"""

from geometry_fusion.data.readers.source import Source

FORMATS = {  # name -> description, as the help of `geometry_fusion.data.convert` prints it
    "scannetpp": "ScanNet++ v1, v2 (toolbox layout; DSLR and iPhone)",
    "ase": "Aria Synthetic Environments",
    "replica": "Replica as rendered for NICE-SLAM",
    "semantic_nerf": "Replica as rendered for Semantic-NeRF, with instances",
    "scannet": "ScanNet v2 (exported folders or .sens)",
    "vos": "MOSE, DAVIS 2017, YouTube-VOS, LVOS: JPEGImages and Annotations",
    "sav": "SA-V",
    "nerfstudio": "nerfstudio transforms.json",
    "record3d": "Record3D .r3d",
    "polycam": "Polycam raw export",
    "stray": "Stray Scanner",
}

__all__ = ["FORMATS", "Source"]
