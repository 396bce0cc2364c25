"""The words of a command that Hydra does not read: argparse, in the manner of this project's other commands."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """The parser of `lgap-bench <command>`: what it refuses is one line, and `outputs=DIR`, as `run` has it, is `--outputs DIR`."""

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=f"lgap-bench {command}", description=description, epilog=epilog)

    def error(self, message: str) -> NoReturn:
        """Raise ValueError, where argparse would print its usage and exit."""
        raise ValueError(f"{message}: see `{self.prog} --help`")

    def given(self) -> argparse.Namespace:
        """What this process was called with."""
        words = (["--outputs", word[8:]] if word.startswith("outputs=") else [word] for word in sys.argv[1:])
        return self.parse_args([word for pair in words for word in pair])
