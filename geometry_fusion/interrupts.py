"""Signals: Ctrl-C, SIGTERM and SIGHUP end a script with one line, after it has cleaned up.

Imports only the standard library: scripts call `watch_imports` before they import torch and other
large packages.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

MESSAGE = "interrupted: what was complete before is still there"
# Windows has no SIGHUP.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
RAISE_AGAIN_S = 0.05


class Stopped(KeyboardInterrupt):
    """Raised when a signal asks the process to end. As with Ctrl-C, every `finally` runs."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = int(number)

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, as shells expect."""
        return 128 + self.number


def watch_imports() -> None:
    """Until `stopping_on_signals`, a signal ends the process at once, with one line, no traceback.

    During imports there is nothing to clean up, and a package that is being imported might swallow
    an exception.
    """
    for number in SIGNALS:
        if _is_default(signal.getsignal(number)):
            signal.signal(number, _end_at_once)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Inside the block, signals raise `Stopped`. Ignored signals (under `nohup`) stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    hook = sys.unraisablehook
    for number, handler in before.items():
        if _is_default(handler) or handler is _end_at_once:
            signal.signal(number, _raise)

    def send_again_or_report(unraisable) -> None:
        if not _send_again(unraisable):
            hook(unraisable)

    sys.unraisablehook = send_again_or_report
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def loading() -> Iterator[None]:
    """Inside the block, within `stopping_on_signals`, a signal ends the process at once, as in
    `watch_imports`: for imports of large packages before anything was begun.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    replaced = [number for number in SIGNALS if signal.getsignal(number) is _raise]
    for number in replaced:
        signal.signal(number, _end_at_once)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, _raise)


@contextmanager
def ignored_by_children() -> Iterator[None]:
    """Processes that start in the block ignore Ctrl-C and SIGHUP; the parent ends them.

    A terminal sends both signals to all processes, and workers would print tracebacks during their
    imports.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in SIGNALS
        if number != signal.SIGTERM
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_default(handler) -> bool:
    return handler in (signal.SIG_DFL, signal.default_int_handler)


def _end_at_once(number: int, _frame) -> None:
    try:
        os.write(2, f"{MESSAGE}\n".encode())
    finally:
        os._exit(128 + number)


def _raise(number: int, _frame) -> None:
    raise Stopped(number)


def _send_again(unraisable) -> bool:
    """Send a signal again whose `Stopped` Python dropped; returns whether it was one.

    Python drops exceptions that a signal raises inside a destructor or a callback.
    """
    if not isinstance(unraisable.exc_value, Stopped):
        return False
    threading.Timer(RAISE_AGAIN_S, os.kill, (os.getpid(), unraisable.exc_value.number)).start()
    return True
