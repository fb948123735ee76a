"""Errors that users see: `InputError`, whose one line names the value, the file and the cure.

Scripts run their `main` through `run_cli`. Bad input prints that line and exits with 2; a signal
exits with 128 + its number (Ctrl-C: 130). Any other exception keeps its traceback: it is a bug.
"""

import argparse
import re
import sys
from collections.abc import Callable
from contextlib import suppress

from geometry_fusion.interrupts import MESSAGE, Stopped, stopping_on_signals
from geometry_fusion.io.temporary import sweep_working_folders

LONGEST = 1500  # characters of a message; longer ones lose their middle
INTERRUPTED = 130  # 128 + SIGINT, what shells expect


class InputError(ValueError):
    """The user's input cannot be used. The message is one safe line: value, file, cure."""

    def __init__(self, message: str):
        text = one_line(message)
        if len(text) > LONGEST:
            # A message may quote a whole file in one line. Its end holds the cure, so keep that.
            text = f"{text[: LONGEST - 300]} ... {text[-250:]}"
        super().__init__(text)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults except None and False, and keeps the line breaks of descriptions."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """As ArgumentParser, but a wrong command line raises InputError, without the usage text."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"formatter_class": HelpFormatter, **kwargs})

    def parse_known_args(self, args=None, namespace=None):
        """As ArgumentParser, plus: coordinates may start with a minus (--point -5,5).

        argparse would take them for an option; here they are reported as outside the image.
        """
        words = sys.argv[1:] if args is None else args
        joined = []
        for word in words:
            follows_flag = joined and joined[-1].startswith("--") and "=" not in joined[-1]
            if follows_flag and re.match(r"-[\d.][^ ]*,", word):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_known_args(joined, namespace)

    def error(self, message: str):
        """As ArgumentParser, but raises InputError instead of printing and exiting."""
        raise InputError(f"{message}; see {self.prog} --help")


def one_line(error: BaseException | str) -> str:
    """The text of an error as one line that is safe to print. For messages that quote libraries
    and files.
    """
    return printable(" ".join(str(error).split()))


def printable(text: str) -> str:
    """Text from elsewhere, with every character escaped that controls a terminal or is invisible.

    Names in files may hold colours, cursor movements, changes of the writing direction, or bytes
    that are no text.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def run_cli(main: Callable[[], int | None]) -> int:
    """Run a script's `main` and return the exit code of the process.

    0, 2 for bad input, or 128 + the number of the signal that ended it.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # File names need not be valid text, and terminals lack letters: escape such characters.
        sys.stdout.reconfigure(errors="backslashreplace")
    with stopping_on_signals():
        try:
            sweep_working_folders()
            return main() or 0
        except InputError as error:
            return _failed(error)
        except OSError as error:
            # A full disk, a read-only folder, missing permissions: the system's own message names
            # the reason and the file.
            return _failed(error)
        except KeyboardInterrupt as stop:
            with suppress(OSError):  # after SIGHUP the terminal may be gone
                print(MESSAGE, file=sys.stderr)
            return stop.exit_code if isinstance(stop, Stopped) else INTERRUPTED


def _failed(error: Exception) -> int:
    """Print the error; returns the exit code."""
    with suppress(OSError):
        print(f"error: {one_line(error)}", file=sys.stderr)
    return 2
