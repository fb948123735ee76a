"""Names of files on pages and in pictures, whatever bytes they are made of."""

import re
from pathlib import Path

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters, halves of characters (bytes that are no text), ends of lines and paragraphs,
# and what changes the direction of the text around it.
UNSHOWN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u2028-\\u202e\\u2066-\\u2069]")


def shown_name(name: str | Path) -> str:
    """A name as one line of text for readers: what is no letter becomes U+FFFD.

    Terminals get such characters escaped instead (geometry_fusion.errors.printable), which can be
    typed again.
    """
    return UNSHOWN.sub(REPLACEMENT, str(name))
