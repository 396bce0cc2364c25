"""The command `lgap-bench`: `run` (the Hydra app), `report`, `demo`. Errors are one line; heavy imports are lazy."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lgap_bench.runtime.errors import one_line_errors

USAGE = """lgap-bench: how robust is a classifier behind an adversarial purifier?

  lgap-bench run [group=name ...] [key=value ...]    measure one cell (or -m to sweep): see `lgap-bench run --help`
  lgap-bench report [--outputs DIR] [--csv FILE] [--markdown]    one table of all records, seeds merged
  lgap-bench report table=coup/1 [dataset=digits]    a paper's table, published beside measured
  lgap-bench report --captions [...]                 what the attacks did to the captions: label word, BLEU, ROUGE-L
  lgap-bench sync [--outputs DIR] [record ...]       send records to Weights & Biases that it does not have yet
  lgap-bench demo [--outputs DIR]                    LGAP against ever better attackers, in miniature
  lgap-bench --version
"""


def main() -> None:
    """Dispatch on the first word."""
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
    elif command == "--version":
        from lgap_bench import __version__

        print(__version__)
    elif command in _COMMANDS:
        # argparse takes the keys in one piece: a flag between them would make the second piece unknown.
        sweep = [word for word in rest if word in ("-m", "--multirun")]
        sys.argv = [f"lgap-bench {command}", *sweep, *(word for word in rest if word not in sweep)]
        one_line_errors(_COMMANDS[command])
    else:
        print(f"lgap-bench: {command} is not a command: use run, report, sync or demo", file=sys.stderr)
        sys.exit(2)


def _run() -> None:
    from lgap_bench.run import main as run

    run()


def _report() -> None:
    from lgap_bench.report.command import main as report

    report()


def _sync() -> None:
    from lgap_bench.logger.sync import main as sync

    sync()


def _demo() -> None:
    from lgap_bench.demo import main as demo

    demo()


_COMMANDS: dict[str, Callable[[], None]] = {"run": _run, "report": _report, "sync": _sync, "demo": _demo}


if __name__ == "__main__":
    main()
