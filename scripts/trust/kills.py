"""What kills cost: a sweep whose workers are killed at random, and two sweeps at once: `python -m scripts.trust.kills`.

Eight cells in two shards each are measured by four processes, `python -m lgap_bench.run -m seed=0,1,... shard=0,1 shards=2`, each
of which begins at another cell. Twenty times one of them gets SIGKILL at a random moment while something is computed, and its command is
given again, until all records are whole. Then two sweeps over the same cells run at once. At the end every record is compared, sample by sample, with that of an undisturbed run. The table says how
often a chunk was begun again, and how many seconds of work that was. A chunk's claim (a file named by who holds it) is what
tells who computes it and since when; the folder of claims is looked at 50 times a second.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lgap_bench.record import Record, records
from lgap_bench.runtime.files import matching
from lgap_bench.runtime.worker import read_worker

CELL = (
    "purifier=lgap", "attack=bpda", "attack.steps=20", "n=16", "chunk=4", "score_draws=4", "threads=1", "logger=none",
)  # fmt: skip
LOOK = 0.02  # seconds between two looks at the claims
HEAD = (
    "| | records whole | samples that differ | kills | in a chunk | chunks | begun again | seconds repeated | computed twice | seconds |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass
class Attempt:
    """One computation of a chunk: who held its claim, from when to when, and whether a kill ended it."""

    chunk: str
    pid: int
    began: float
    ended: float
    killed: bool = False


@dataclass
class Watch:
    """What was seen of the claims below an outputs folder."""

    outputs: Path
    attempts: dict[str, Attempt] = field(default_factory=dict)  # by the claim's own name, which is never used twice

    def look(self) -> None:
        """Note who computes what just now."""
        now = time.monotonic()
        for file in matching(self.outputs / "locks", "*-*.lock/*"):
            worker = read_worker(file.name)
            if worker is not None:
                seen = self.attempts.setdefault(file.name, Attempt(file.parent.stem, worker.pid, now, now))
                seen.ended = now if not seen.killed else seen.ended

    @property
    def busy(self) -> bool:
        """Whether anybody computes a chunk, as far as the last look says."""
        return any(time.monotonic() - each.ended < 5 * LOOK and not each.killed for each in self.attempts.values())

    def killed(self, pid: int) -> None:
        """A worker gets SIGKILL now: what it was computing ends here."""
        self.look()
        now = time.monotonic()
        for attempt in self.attempts.values():
            if attempt.pid == pid and now - attempt.ended < 2 * LOOK:
                attempt.ended, attempt.killed = now, True

    def row(self, name: str, kills: int, seconds: float, undisturbed: Path) -> str:
        """A line of the table."""
        by_chunk: dict[str, list[Attempt]] = {}
        for attempt in self.attempts.values():
            by_chunk.setdefault(attempt.chunk, []).append(attempt)
        lost = [each for held in by_chunk.values() for each in held if each.killed and each is not held[-1]]
        twice = sum(sum(not each.killed for each in held) > 1 for held in by_chunk.values())
        whole, differ = compared(self.outputs, undisturbed)
        in_chunk = sum(attempt.killed for attempt in self.attempts.values())
        repeated = sum(attempt.ended - attempt.began for attempt in lost)
        return f"| {name} | {whole} | {differ} | {kills} | {in_chunk} | {len(by_chunk)} | {len(lost)} | {repeated:.1f} | {twice} | {seconds:.0f} |"


def main(arguments: list[str]) -> None:
    """Run the experiment and print its table; exit 1 where a record is missing or a sample differs."""
    parser = argparse.ArgumentParser(prog="python -m scripts.trust.kills")
    for name, default in (("kills", 20), ("cells", 8), ("workers", 4), ("shards", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--every", type=float, default=4.0, help="seconds of work between two kills, on average")
    parser.add_argument("--outputs", type=Path, help="where the records are kept; a temporary folder if not given")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        base = asked.outputs or Path(folder)
        calm = base / "undisturbed"
        seconds = together(Watch(calm), [sweep(calm, asked.cells)])
        print(f"undisturbed: {len(records(calm))} records in {seconds:.0f} s", flush=True)
        if len(records(calm)) != asked.cells:
            sys.exit("the undisturbed sweep did not end well")
        killed, both = Watch(base / "killed"), Watch(base / "both")
        began = time.monotonic()
        kills = survived(killed, asked)
        lines = [killed.row("workers killed at random", kills, time.monotonic() - began, calm)]
        print(f"{HEAD}\n{lines[0]}", flush=True)
        seconds = together(both, [sweep(both.outputs, asked.cells)] * 2)
        lines.append(both.row("two sweeps at once", 0, seconds, calm))
        print(lines[1])
    if not all(line.split("|")[2:4] == [f" {asked.cells} ", " 0 "] for line in lines):
        sys.exit(1)


def sweep(outputs: Path, cells: int) -> list[str]:
    """The command of a whole sweep."""
    return command(outputs, f"seed=range(0,{cells})", "-m")


def command(outputs: Path, *words: str) -> list[str]:
    """A call of the application in a process of its own."""
    return [sys.executable, "-m", "lgap_bench.run", *CELL, f"outputs={outputs}", *words]


def started(words: list[str]) -> subprocess.Popen[bytes]:
    """A silent worker: what counts are its records."""
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def together(watch: Watch, commands: list[list[str]]) -> float:
    """Run commands at once to their end; returns the seconds."""
    began = time.monotonic()
    processes = [started(words) for words in commands]
    while any(process.poll() is None for process in processes):
        watch.look()
        time.sleep(LOOK)
    return time.monotonic() - began


def survived(watch: Watch, asked: argparse.Namespace) -> int:
    """Run all workers to the end of their sweeps, killing them at random and giving their command again; returns the kills."""
    dice, kills = random.Random(asked.seed), 0
    running = [(started(words), words) for words in workers(watch.outputs, asked)]
    due = dice.uniform(0, 2 * asked.every)  # in seconds of work: a start that takes long is not what is asked about
    while running:
        if kills < asked.kills and due < 0:
            process, _ = dice.choice(running)
            if process.poll() is None:
                watch.killed(process.pid)
                process.kill()
                kills += 1
            due = dice.uniform(0, 2 * asked.every)
        for process, words in [each for each in running if each[0].poll() is not None]:
            running.remove((process, words))
            if process.returncode:
                running.append((started(words), words))
        at = time.monotonic()
        watch.look()
        time.sleep(LOOK)
        due -= time.monotonic() - at if watch.busy else 0
    return kills


def workers(outputs: Path, asked: argparse.Namespace) -> list[list[str]]:
    """One sweep over all shards of all cells for each worker; they begin at different cells."""
    shards = [f"shard=range(0,{asked.shards})", f"shards={asked.shards}"]
    orders = [
        [(k * asked.cells // asked.workers + i) % asked.cells for i in range(asked.cells)] for k in range(asked.workers)
    ]
    return [command(outputs, f"seed={','.join(map(str, order))}", *shards, "-m") for order in orders]


def compared(outputs: Path, undisturbed: Path) -> tuple[int, int]:
    """How many records are whole, of those that there should be, and how many samples of them are not as undisturbed."""
    pairs = list(_pairs(outputs, undisturbed))
    differ = 0
    for own, theirs in pairs:
        mine, others = own.samples(), theirs.samples()
        differ += len(others["id"]) if mine.keys() != others.keys() else 0
        rows = (zip(*table.values(), strict=True) for table in (mine, others))
        differ += sum(repr(a) != repr(b) for a, b in zip(*rows, strict=True))  # NaN is NaN
        differ += own.summary() != theirs.summary()
    return len(pairs), differ


def _pairs(outputs: Path, undisturbed: Path) -> Iterator[tuple[Record, Record]]:
    for record in records(undisturbed):
        own = Record(outputs / "records" / record.folder.name)
        if own.complete:
            own.check()
            yield own, record


if __name__ == "__main__":
    main(sys.argv[1:])
