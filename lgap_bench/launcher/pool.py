"""Processes that take jobs one after the other and outlive none of their own: who dies is named and replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from lgap_bench.runtime import signals
from lgap_bench.sweep.job import silently

TICK = 1.0  # seconds between two looks at the clock
PATIENCE = 30.0  # seconds that an interrupted process has to write down where it is
Task = tuple[
    int, Callable[[], Any]
]  # a job's number, and what composes its config: when it begins, not before the first
Ended = tuple[int, Any, str]  # number, outcome or None for one that died, what it printed or how it died


@dataclass
class Worker:
    """A process, the way to it, and the job that it has."""

    process: BaseProcess
    connection: Connection
    gpu: str | None
    job: int | None = None


class Pool:
    """`count` processes, each on one of the GPUs if there are any."""

    def __init__(self, count: int, gpus: Sequence[str], task: Callable[[Any], Any], context: Any) -> None:
        self.task, self.hydra = task, context
        self.places: list[str | None] = [gpus[i % len(gpus)] if gpus else None for i in range(count)]
        self.spawning = multiprocessing.get_context("spawn")  # a fork would share torch's and CUDA's state
        self.workers: list[Worker] = []

    def run(self, tasks: Sequence[Task], tick: Callable[[], None]) -> Iterator[Ended]:
        """Do all tasks, in the order in which they end. An interruption is passed on to every process."""
        todo = list(reversed(tasks))
        try:
            self.workers = [self._started(place) for place in self.places]
            for worker in self.workers:
                self._next(worker, todo)
            while any(worker.job is not None for worker in self.workers):
                yield from self._collected(todo)
                tick()
        except BaseException:
            self._stop(signal.SIGTERM)
            raise
        finally:
            self._stop(None)

    def _collected(self, todo: list[Task]) -> Iterator[Ended]:
        """What has ended by now."""
        busy = [worker for worker in self.workers if worker.job is not None]
        ready = wait([each for worker in busy for each in (worker.connection, worker.process.sentinel)], timeout=TICK)
        for worker in busy:
            if worker.connection not in ready and worker.process.sentinel not in ready:
                continue
            number = worker.job
            assert number is not None
            try:
                outcome, printed = worker.connection.recv()
            except (EOFError, OSError):  # it died, before or while it answered
                yield number, None, self._buried(worker)
                if todo:
                    self._next(worker, todo)
                continue
            self._next(worker, todo)
            yield number, outcome, printed

    def _next(self, worker: Worker, todo: list[Task]) -> None:
        """Give a process its next job, or let it go."""
        worker.job = None
        if todo:
            worker.job, compose = todo.pop()
            worker.connection.send((worker.job, compose()))

    def _buried(self, worker: Worker) -> str:
        """How a process died, in words; a new one stands in its place."""
        worker.process.join()
        code = worker.process.exitcode or 0
        place = self.workers.index(worker)
        self.workers[place] = worker  # the same entry: whoever holds it sees the new process
        fresh = self._started(worker.gpu)
        worker.process, worker.connection, worker.job = fresh.process, fresh.connection, None
        if code < 0:
            name = signal.Signals(-code).name
            more = ", for too much memory perhaps" if name == "SIGKILL" else ""
            return f"its process was killed by {name}{more}"
        return f"its process ended by itself with exit code {code}: a part's code must raise an error instead"

    def _started(self, gpu: str | None) -> Worker:
        ours, theirs = self.spawning.Pipe()
        # Before the process begins: libraries read these when they are loaded.
        more = {"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {"OMP_NUM_THREADS": "1"}
        process = self.spawning.Process(target=serve, args=(theirs, self.task, self.hydra, more, os.getpid()))
        process.start()
        theirs.close()
        return Worker(process, ours, gpu)

    def _stop(self, number: int | None) -> None:
        """End all processes: at once by a signal, or as soon as they have nothing to do."""
        for worker in self.workers:
            if worker.process.is_alive() and number is not None:
                os.kill(worker.process.pid or 0, number)
            worker.connection.close()
        until = time.monotonic() + PATIENCE
        for worker in self.workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers = []


def serve(
    connection: Connection, task: Callable[[Any], Any], hydra: Any, environment: dict[str, str], parent: int
) -> None:
    """A process's life: job after job until nobody has one for it."""
    os.environ.update(environment)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signals.listen()
    _die_with(parent)
    from hydra.core.utils import run_job, setup_globals

    setup_globals()
    try:
        while True:
            _number, config = connection.recv()
            returned, printed = silently(
                lambda config=config: run_job(  # type: ignore[misc]
                    hydra_context=hydra,
                    task_function=task,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            )
            connection.send((returned.return_value, printed))
    except EOFError:  # no more jobs
        return
    except KeyboardInterrupt as error:  # written down by the job; the launcher says it once for all
        sys.exit(signals.exit_code(error))


def _die_with(parent: int) -> None:
    """End, as after SIGTERM, when the launcher is gone without having said so."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(TICK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="watches the launcher").start()
