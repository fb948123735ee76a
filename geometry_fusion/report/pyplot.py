"""matplotlib with the settings that all our pictures share; import `plt` from here.

No window, names shown unchanged, and the same file from the same numbers. Also the colours of
pages, and plots as SVG that follows a page's dark mode.
"""

import io
import re
import warnings

import matplotlib

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt

__all__ = ["BLUE", "GREY", "INK", "ORANGE", "PAGE_STYLE", "plt", "svg_of"]

matplotlib.rcParams["text.parse_math"] = False  # a file name with two $ is no formula
# Letters that the font lacks are drawn as boxes, which needs no warning in the terminal.
warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)

INK = "#1d2329"
ORANGE, BLUE, GREY = "#c2571a", "#1f6fb2", "#6b7580"
# Colours that the style sheet of a page may replace, in dark mode.
PAGE_COLOURS = {
    INK: "currentColor",
    ORANGE: f"var(--orange, {ORANGE})",
    BLUE: f"var(--blue, {BLUE})",
    GREY: f"var(--grey, {GREY})",
}
# The style of plots whose text and axes take the colour of their page.
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
    """The figure as an SVG element for a page, with the page's background and text colour.

    Closes the figure. name: a prefix for the ids in it, unique on the page.
    """
    text = io.StringIO()
    with plt.rc_context({"svg.hashsalt": name}):  # without it, ids are random
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    for colour, of_page in PAGE_COLOURS.items():
        svg = svg.replace(colour, of_page)
    return svg
