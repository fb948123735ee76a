"""Showing file names on pages and in pictures, whatever bytes they are made of."""

import re
from pathlib import Path

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters, surrogates (bytes that are no text), line and paragraph separators, and
# characters that change the writing direction of the text around them.
UNSHOWN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u2028-\\u202e\\u2066-\\u2069]")


def shown_name(name: str | Path) -> str:
    """A name as one line of text for readers; characters that cannot be shown become U+FFFD.

    On a terminal such characters are escaped instead (geometry_fusion.errors.printable), so that
    the name can be typed again.
    """
    return UNSHOWN.sub(REPLACEMENT, str(name))
