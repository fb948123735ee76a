"""How bad input ends: `InputError` carries one line that names the value, the file and the cure.

Scripts run their `main` through `run_cli`: bad input exits with 2 and that one line, Ctrl-C with 130. Anything else
keeps its traceback, because it is a bug.
"""

import argparse
import sys
from collections.abc import Callable

INTERRUPTED = 130  # 128 + SIGINT, what shells expect


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line: value, file, cure."""


class OneLineParser(argparse.ArgumentParser):
    """As ArgumentParser, but a wrong command line is an InputError: one line, without the usage before it."""

    def error(self, message: str):
        raise InputError(f"{message}; see {self.prog} --help")


def one_line(error: BaseException | str) -> str:
    """The text of an error as a single line, for messages that quote other libraries."""
    return " ".join(str(error).split())


def run_cli(main: Callable[[], int | None]) -> int:
    """Run a script's `main` and return its exit code: 0, 2 on bad input, 130 on Ctrl-C."""
    try:
        return main() or 0
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        # Full disks, read-only folders, missing permissions: the system's own words and the file say it best.
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing that existed before was changed", file=sys.stderr)
        return INTERRUPTED
