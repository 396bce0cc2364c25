"""Errors that a user can mend are printed as one line on stderr; any other error is our bug and keeps its traceback."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from lgap_bench import CONF
from lgap_bench.runtime import signals
from lgap_bench.runtime.files import FULL

GROUPS = ("guidance", "sampler")  # folders of conf/purifier that are groups of their own, not purifiers
USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)


class Refused(SystemExit):
    """A user's error on its way out through a library that would print an `Exception` in words of its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(1)
        self.error = error


def is_user_error(error: BaseException) -> bool:
    """Whether the user can mend this error: a wrong value or config, a file, or too little GPU memory."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return True
    if type(error).__name__ == "InstantiationException":  # Hydra wraps whatever a constructor raised
        return isinstance(error.__cause__, USER_ERRORS)
    return isinstance(error, USER_ERRORS)


def in_user_code(error: BaseException) -> bool:
    """Whether an error came through code that is neither this package's, an installed library's nor Python's own.

    Its sentence then need not name the part, and whoever calls the code says which it was.
    """
    trace = error.__traceback__
    while trace is not None:
        file, top = trace.tb_frame.f_code.co_filename, str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]
        installed = "site-packages" in Path(file).parts or top in sys.stdlib_module_names
        if not (installed or top == "lgap_bench" or file.startswith("<")):
            return True
        trace = trace.tb_next
    return False


def one_line_errors(command: Callable[[], object]) -> None:
    """Run a command. A user's error is printed as one line with exit code 1; a bug keeps its traceback.

    A signal exits with 128 and its number (Ctrl-C 130, SIGTERM 143), a pipe that was closed with 0. HYDRA_FULL_ERROR=1 shows every traceback.
    """
    full_traceback = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing six lines and exiting
    signals.listen()
    try:
        command()
        sys.stdout.flush()  # so that a closed pipe shows here and not when Python exits
    except KeyboardInterrupt as error:
        print(f"\n{signals.farewell(error)}", file=sys.stderr, flush=True)
        sys.exit(signals.exit_code(error))
    except BrokenPipeError:
        # The reader has seen enough (`| head`). Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Refused as refused:
        if full_traceback == "1":
            raise refused.error from refused.error.__cause__
        print(sentence(refused.error), file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if full_traceback == "1" or not is_user_error(error):
            raise
        print(sentence(error), file=sys.stderr)
        sys.exit(1)


def sentence(error: BaseException) -> str:
    """The error as one line: what is wrong, without Hydra's wrapping, and what to do where its own text does not say so."""
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split("Config search path")[0].split())
    if type(error).__name__ == "OutOfMemoryError":
        text = (
            f"out of memory ({text.split('. ')[0]}): lower max_rows (rows in one pass) or chunk, or set prior.memory=0"
        )
    if isinstance(error, OverrideParseException):
        text = (
            f"{error.override} cannot be read as key=value: keys are plain ASCII, and a value with blanks, brackets or ~ "
            "stands in quotes, 'key=\"...\"'"
        )
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        # Hydra's own advice, to append the key, leads to a part that is given a word it does not know.
        text = f"{unknown[1]} is no key or group here: see `lgap-bench run --help` for groups and `lgap-bench run --cfg job` for keys"
    missing = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if missing:
        text = f"{text[: missing.end()]}: {_choices(missing[1])}"
    if isinstance(error, OSError) and error.errno in FULL:
        where = error.filename or "the file that was being written"
        text = f"disk full: {where} could not be written: free some space, then the same call resumes from its finished chunks"
    elif isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
        text += ": if this folder cannot be written, choose another one with outputs=... (or --outputs)"
    return f"lgap-bench: {text}"


def _choices(wanted: str) -> str:
    """The choices of a group, for the message about one that does not exist; those most like it first, twelve at most.

    `wanted` is Hydra's path, e.g. `subset/coup`. Folders below the group are searched too, which Hydra's own message leaves
    out: for `subset=coup` it would list nothing, although `subset=cifar10/coup_512` exists.
    """
    folder = CONF / wanted
    while not folder.is_dir():
        folder = folder.parent
    place, name = folder.relative_to(CONF).as_posix(), (CONF / wanted).relative_to(folder).as_posix()
    if place == ".":
        return "`lgap-bench run --help` lists the groups and their choices"
    below = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    below += ["basic"] if place == "hydra/launcher" else []  # Hydra's own
    found = [each for each in below if (CONF / place / each).parent.relative_to(folder).as_posix() not in GROUPS]
    close = [each for each in found if name in each or each.split("/")[-1] in name]
    close += [each for each in difflib.get_close_matches(name, found, 3, 0.5) if each not in close]
    listed = [*close, *(each for each in found if each not in close)][:12]
    return f"conf/{place} has {', '.join(listed)}" + (f" and {len(found) - 12} more" if len(found) > 12 else "")
