"""A warm process without torch: the command's answer to many bad inputs, and whether anything heavy was imported for it.

One process answers all of them, a line of JSON each, since starting one takes a second and answering a fifth of one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

HEAVY = ("torch", "diffusers", "transformers")


class Torchless:
    """The process, started by the first call, and anew after a call that has imported something heavy."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None

    def __call__(self, *words: str) -> SimpleNamespace:
        """What the command answers: `returncode`, `stdout`, `stderr`, and the `heavy` modules that are imported now."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder
            )
        print(json.dumps(words), file=self.process.stdin, flush=True)
        answer = SimpleNamespace(**json.loads(self.process.stdout.readline()))
        if answer.heavy:
            self.close()
        return answer

    def refusal(self, *words: str) -> str:
        """The one line on stderr with which the command refuses, before it has imported a model's library."""
        done = self(*words)
        assert done.returncode == 1, done
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stdout == "", done.stdout
        assert done.heavy == [], f"refused only after importing {done.heavy}"
        return done.stderr

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


def serve() -> None:
    """Answer every line of stdin."""
    from cells import called

    for line in sys.stdin:
        answer = called(*json.loads(line))
        heavy = [name for name in HEAVY if name in sys.modules]
        print(json.dumps({**vars(answer), "heavy": heavy}), flush=True)


if __name__ == "__main__":
    serve()
