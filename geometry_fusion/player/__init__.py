"""The player that the report and the studio share: one script, one style sheet, one data object.

`player.js` and `player.css` use nothing else, so that a page can hold them inline and work from
`file://`. The data object's form is described at the top of `player.js`; `data.py` makes it for
static pages, `scene.py` makes its 3D part.
"""

from pathlib import Path

SCRIPT = Path(__file__).with_name("player.js")
SCENE_SCRIPT = Path(__file__).with_name("scene.js")
STYLE = Path(__file__).with_name("player.css")
# Okabe and Ito's colours, which people with colour blindness can tell apart, without black and
# with a violet; https://jfly.uni-koeln.de/color/
COLOURS = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#d55e00",
    "#cc79a7",
    "#4d7dff",
    "#b9a7ff",
)
