"""Signals that end a run: one line, an exit code that says which, and whatever was finished is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType

ENDING = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT")
# Where Python calls functions whose exceptions it ignores: weak references (every import has one) and finalizers.
DEAF = {"importlib._bootstrap": {"cb"}, "weakref": {"remove", "_remove"}, "_weakrefset": {"_remove"}}
LATER = 0.05  # seconds after which a signal that came there is sent again
WARNINGS = ("SIGUSR1", "SIGUSR2")  # what SLURM's --signal sends before the time is over


_raised: list[int] = []  # signals that were raised in this process


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end. No `Exception`, so that no part's `except Exception` can swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def listen() -> None:
    """From now on these signals raise `Interrupted` in the main thread; one that is ignored (nohup) stays ignored.

    Called where a process begins. A handler that somebody else has set (SLURM's launcher) is left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _deaf(frame):  # an exception would end there, and the signal with it
        again = threading.Timer(LATER, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    _raised.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interrupted(number)


def lost() -> KeyboardInterrupt | None:
    """The signal that was raised here, for whoever meets another exception: code on the way may have made that of it.

    C++ that calls Python does, and so do imports whose every failure is an ImportError.
    """
    if not _raised:
        return None
    return KeyboardInterrupt() if _raised[-1] == signal.SIGINT else Interrupted(_raised[-1])


def _deaf(frame: FrameType | None) -> bool:
    """Whether the interrupted code runs inside a function whose exceptions Python ignores."""
    while frame is not None:
        name = frame.f_code.co_name
        if name == "__del__" or name in DEAF.get(str(frame.f_globals.get("__name__")), ()):
            return True
        frame = frame.f_back
    return False


def exit_code(error: KeyboardInterrupt) -> int:
    """128 and the signal's number, as a shell says it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


def farewell(error: KeyboardInterrupt) -> str:
    """What a person reads; under SLURM a warning before the time is over asks for the job to be queued again."""
    name = str(error) if isinstance(error, Interrupted) else ""
    said = f"interrupted ({name})" if name else "interrupted"
    return f"lgap-bench: {said}; what is finished is kept, the same call resumes{_requeued(name)}"


def _requeued(name: str) -> str:
    """Ask SLURM to queue this job again where it warned of the end of its time, and say what came of it."""
    job = os.environ.get("SLURM_JOB_ID")
    if name not in WARNINGS or job is None:
        return ""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    which = f"{array}_{task}" if array and task else job
    try:
        done = subprocess.run(["scontrol", "requeue", which], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"; job {which} could not be queued again ({' '.join(str(error).split())})"
    if done.returncode:
        return f"; job {which} could not be queued again ({' '.join(done.stderr.split())})"
    return f"; job {which} is queued again"
