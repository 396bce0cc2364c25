"""The command `lgap-bench`: `run` (the Hydra app), `tables`, `plan`, `fetch`, `report`, `verify`, `eval`, `demo` and others. Errors are one line; heavy imports are lazy."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

from lgap_bench.runtime.errors import one_line_errors

USAGE = """lgap-bench: how robust is a classifier behind an adversarial purifier?

  lgap-bench run [group=name ...] [key=value ...]    measure one cell (or -m to sweep): see `lgap-bench run --help`
  lgap-bench tables lgap [dataset=digits] [slow=true]    measure all that a paper's tables need, and print them
  lgap-bench plan lgap/1 [or the words of run]       what they will cost: network calls, time, memory, disk; see docs/plan.md
  lgap-bench fetch lgap/1 [or the words of run]      the models and data that these need: what, from where, how large; fetched once
  lgap-bench status [sweep] [--watch] [--list]       a sweep's cells: done, running, waiting, failed
  lgap-bench report [--outputs DIR] [--csv FILE] [--markdown]    one table of all records, seeds merged
  lgap-bench report table=coup/1 [dataset=digits]    a paper's table, published beside measured
  lgap-bench report html=report.html [table=lgap/1]  one page to look at: claims, attackers, tables, pictures, records
  lgap-bench report --captions [...]                 what the attacks did to the captions: label word, BLEU, ROUGE-L
  lgap-bench sync [--outputs DIR] [record ...]       send records to Weights & Biases that it does not have yet
  lgap-bench verify RECORD [seed=N] [device=cuda]    score a record's kept images again: does its number hold? see docs/verify.md
  lgap-bench pack RECORD [file.tar.gz]               one archive of a record, for somebody else's `verify`
  lgap-bench robustbench RECORD [name=...] [card=true]    a record as RobustBench's JSON, or as metrics of a model card
  lgap-bench eval my_package:build [dataset=images path=DIR]    measure a defense of your own: see docs/your_defense.md
  lgap-bench demo [--outputs DIR]                    LGAP against ever better attackers, in miniature
  lgap-bench --version
"""
COMPLETION = {"-sc", "--shell-completion", "--shell_completion"}
HYDRAS = ("run", "tables", "plan", "fetch")  # commands that take Hydra's words


def main() -> None:
    """Dispatch on the first word."""
    _find_own_code()
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
    elif command == "--version" or (command == "run" and "--version" in rest):  # Hydra would print its own
        from lgap_bench import __version__

        print(__version__)
    elif COMPLETION & {command, *rest}:
        one_line_errors(_complete)
    elif command in _COMMANDS:
        # argparse takes the keys in one piece: a flag between them would make the second piece unknown.
        sweep = [word for word in rest if word in ("-m", "--multirun")]
        sys.argv = [f"lgap-bench {command}", *sweep, *(word for word in rest if word not in sweep)]
        one_line_errors(_COMMANDS[command])
    else:
        print(f"lgap-bench: {command} is not a command: use {', '.join(_COMMANDS)}", file=sys.stderr)
        sys.exit(2)


def _find_own_code() -> None:
    """Modules in the working directory can be named in a config, last of all: none of them hides an installed package."""
    with contextlib.suppress(OSError):  # a directory that was removed
        here = os.getcwd()
        if here not in sys.path:
            sys.path.append(here)


def _complete() -> None:
    """Tab completion: `lgap-bench -sc install=bash` prints it, and the shell calls `lgap-bench -sc query=bash` at each TAB.

    Hydra's completion knows a program and its words; here a command stands between them, which is taken out of the line.
    """
    query = next((word for word in sys.argv[1:] if "=" in word), "")
    words = os.environ.get("COMP_LINE", "").split()
    typed = words[1:] if os.environ.get("COMP_LINE", "").endswith(" ") else words[1:-1]  # whole words after the program
    if query.startswith("query=") and (not typed or typed[0] not in HYDRAS):
        begun = "" if not words or len(typed) == len(words) - 1 else words[-1]
        print("\n".join(name for name in _COMMANDS if not typed and name.startswith(begun)))
        return
    if typed:
        before, _, after = os.environ["COMP_LINE"].partition(typed[0])
        os.environ["COMP_LINE"] = before + after.lstrip()
    sys.argv = ["lgap-bench", "-sc", query]
    from lgap_bench.run import app

    app()


def _run() -> None:
    from lgap_bench.run import main as run

    run()


def _tables() -> None:
    from lgap_bench.run import app
    from lgap_bench.sweep.tables import main as tables

    tables(app)


def _plan() -> None:
    from lgap_bench.sweep.plan import main as plan

    plan()


def _fetch() -> None:
    from lgap_bench.sweep.fetch import main as fetch

    fetch()


def _status() -> None:
    from lgap_bench.sweep.watch import main as status

    status()


def _report() -> None:
    from lgap_bench.report.command import main as report

    report()


def _sync() -> None:
    from lgap_bench.logger.sync import main as sync

    sync()


def _verify() -> None:
    from lgap_bench.verify.command import main as verify

    verify()


def _pack() -> None:
    from lgap_bench.verify.archive import main as pack

    pack()


def _robustbench() -> None:
    from lgap_bench.verify.robustbench import main as robustbench

    robustbench()


def _eval() -> None:
    from lgap_bench.own.shell import main as evaluated

    evaluated()


def _demo() -> None:
    from lgap_bench.demo import main as demo

    demo()


_COMMANDS: dict[str, Callable[[], None]] = {
    "run": _run,
    "tables": _tables,
    "plan": _plan,
    "fetch": _fetch,
    "status": _status,
    "report": _report,
    "sync": _sync,
    "verify": _verify,
    "pack": _pack,
    "robustbench": _robustbench,
    "eval": _eval,
    "demo": _demo,
}


if __name__ == "__main__":
    main()
