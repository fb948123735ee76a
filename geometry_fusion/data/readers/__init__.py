"""Readers of published datasets and of captures people make: one module per format, all give a
`Source`.

Every module has

    find(root) -> list[str]          names of the scenes under `root`, sorted; raises InputError
    where there are none
    open_scene(root, name) -> Source

A reader pairs files by the frame number in their names, never by position, leaves out poses that
are not rigid (`rigid_poses`), and tells in `notes` what it left out. Axes and units are those of
geometry_fusion.data.scenes; ids stay what they are in the source unless the module says otherwise.
No reader writes or runs code that a file brings.
"""

from geometry_fusion.data.readers.source import Source

FORMATS = {  # name -> what `geometry_fusion.data.convert` and its help say
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
