"""How bad input ends: `InputError` carries one line that names the value, the file and the cure.

Scripts run their `main` through `run_cli`: bad input exits with 2 and that one line, a signal with
128 + its number (Ctrl-C: 130). Anything else keeps its traceback, because it is a bug.
"""

import argparse
import re
import sys
from collections.abc import Callable
from contextlib import suppress

from geometry_fusion.interrupts import MESSAGE, Stopped, stopping_on_signals
from geometry_fusion.temporary import sweep_working_folders

LONGEST = 1500  # characters of a message
INTERRUPTED = 130  # 128 + SIGINT, what shells expect


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line that is safe to print: value,
    file, cure.
    """

    def __init__(self, message: str):
        text = one_line(message)
        # What it quotes may be a whole file in one line; the cure stands at the end.
        super().__init__(
            text if len(text) <= LONGEST else f"{text[: LONGEST - 300]} ... {text[-250:]}"
        )


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, but not "(default: None)", and keeps the line breaks of descriptions."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """As ArgumentParser, but a wrong command line is an InputError: one line, without the usage
    before it.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"formatter_class": HelpFormatter, **kwargs})

    def parse_known_args(self, args=None, namespace=None):
        """As ArgumentParser, plus: a value may start with a minus (--point -5,5), so that it is
        told to be outside.
        """
        args, joined = list(sys.argv[1:] if args is None else args), []
        for word in args:
            if (
                joined
                and joined[-1].startswith("--")
                and "=" not in joined[-1]
                and re.match(r"-[\d.][^ ]*,", word)
            ):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_known_args(joined, namespace)

    def error(self, message: str):
        raise InputError(f"{message}; see {self.prog} --help")


def one_line(error: BaseException | str) -> str:
    """The text of an error as a single line that is safe to print, for messages that quote
    libraries and files.
    """
    return printable(" ".join(str(error).split()))


def printable(text: str) -> str:
    """Text from elsewhere with every character escaped that a terminal obeys or that has no shape.

    Names in files may hold colours, cursor movements, the change of direction of writing, or bytes
    that are no text.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def run_cli(main: Callable[[], int | None]) -> int:
    """Run a script's `main` and return its exit code: 0, 2 on bad input, 128 + number of a signal
    that ended it.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # Names of files need not be text, nor has every terminal all letters: print such characters
        # escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    with stopping_on_signals():
        try:
            sweep_working_folders()
            return main() or 0
        except InputError as error:
            return _failed(error)
        except OSError as error:
            # Full disks, read-only folders, missing permissions: the system's own words and the
            # file say it best.
            return _failed(error)
        except KeyboardInterrupt as stop:
            with suppress(OSError):  # after SIGHUP the terminal may be gone
                print(MESSAGE, file=sys.stderr)
            return stop.exit_code if isinstance(stop, Stopped) else INTERRUPTED


def _failed(error: Exception) -> int:
    with suppress(OSError):
        print(f"error: {one_line(error)}", file=sys.stderr)
    return 2
