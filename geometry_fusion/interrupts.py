"""Ctrl-C, SIGTERM and SIGHUP end a script with one line, after it has removed its temporary files.

Needs nothing but the standard library: scripts call `watch_imports` before they import torch and
other large packages.
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
    """A signal asked the process to end. Like Ctrl-C it runs every `finally` on its way."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = int(number)

    @property
    def exit_code(self) -> int:
        return 128 + self.number


def watch_imports() -> None:
    """Until `stopping_on_signals` takes over, a signal ends the process at once, with one line and
    no traceback.

    During imports there is nothing to remove, and an exception might be swallowed by a package that
    is being imported.
    """
    for number in SIGNALS:
        if _is_default(signal.getsignal(number)):
            signal.signal(number, _end_at_once)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Inside the block the signals raise `Stopped`. Signals that are ignored, as under `nohup`,
    stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    hook = sys.unraisablehook
    for number, handler in before.items():
        if _is_default(handler) or handler is _end_at_once:
            signal.signal(number, _raise)
    sys.unraisablehook = lambda unraisable: _raise_again(unraisable) or hook(unraisable)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ignored_by_children() -> Iterator[None]:
    """Processes started in the block ignore Ctrl-C and SIGHUP from their first moment on; the
    parent ends them.

    A terminal sends both to all processes, and workers would print tracebacks while they import.
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


def _raise_again(unraisable) -> bool:
    """Python drops exceptions that a signal raises inside a destructor or a callback: send the
    signal again.
    """
    if not isinstance(unraisable.exc_value, Stopped):
        return False
    threading.Timer(RAISE_AGAIN_S, os.kill, (os.getpid(), unraisable.exc_value.number)).start()
    return True
