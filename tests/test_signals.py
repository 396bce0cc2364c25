"""A signal ends a process wherever it meets it, also in functions whose exceptions Python ignores."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEETS = """
import os, signal, sys, time, weakref
from lgap_bench.runtime.errors import one_line_errors


def send():
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000):  # the handler runs between two steps of Python's own
        pass


class Finalized:
    def __del__(self):
        send()


class Thing:
    pass


def by_import():
    import importlib._bootstrap as bootstrap

    def cb(ref):
        send()

    cb = type(cb)(cb.__code__.replace(co_name="cb"), {{**vars(bootstrap), "send": send}})
    thing = Thing()
    kept = weakref.ref(thing, cb)
    del thing


def work():
    {where}
    time.sleep(30)


one_line_errors(work)
"""


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGINT", 130)])
@pytest.mark.parametrize("where", ["send()", "Finalized()", "by_import()"])
def test_a_signal_is_not_lost_where_python_ignores_exceptions(name, code, where):
    done = subprocess.run(
        [sys.executable, "-c", MEETS.format(name=name, where=where)], capture_output=True, text=True, timeout=25
    )
    assert done.returncode == code, done.stderr
    assert "what is finished is kept" in done.stderr
    assert "Traceback" not in done.stderr
