"""matplotlib as all pictures here need it: without a window, names as they are, the same file from
the same numbers.
"""

import io
import re
import warnings

import matplotlib

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt

__all__ = ["BLUE", "GREY", "ORANGE", "PAGE_STYLE", "plt", "svg_of"]

matplotlib.rcParams["text.parse_math"] = False  # a name with two dollar signs is no formula
# Letters that no font here has are drawn as boxes; that is no news for the terminal.
warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)

INK = "#1d2329"
ORANGE, BLUE, GREY = "#c2571a", "#1f6fb2", "#6b7580"
# What the style sheet of a page may change, in dark mode.
PAGE_COLOURS = {
    INK: "currentColor",
    ORANGE: f"var(--orange, {ORANGE})",
    BLUE: f"var(--blue, {BLUE})",
    GREY: f"var(--grey, {GREY})",
}
# Text and axes of plots that take the colour of the page they are on.
PAGE_STYLE = dict.fromkeys(
    (
        "text.color",
        "axes.labelcolor",
        "axes.edgecolor",
        "xtick.color",
        "ytick.color",
        "legend.labelcolor",
    ),
    INK,
)


def svg_of(figure, name: str) -> str:
    """The figure as an SVG element for a page, on the background and in the ink of the page; closes
    the figure.

    name: tells its parts from those of other figures on the page.
    """
    text = io.StringIO()
    with plt.rc_context({"svg.hashsalt": name}):  # without, the names of its parts are random
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    for colour, of_page in PAGE_COLOURS.items():
        svg = svg.replace(colour, of_page)
    return svg
