"""Whether an error means that SLURM takes this job away: submitit's signal handler raises inside whatever code runs."""

from __future__ import annotations

HANDLER = ("submitit.core.job_environment", "checkpoint_and_try_requeue")


def taken_away(error: BaseException) -> str | None:
    """One sentence if `error` comes from submitit's handler (time limit near, preemption), else None.

    A SystemExit from there means that the job was put back into the queue and goes on from its finished chunks: it was
    interrupted, it has not failed. Another error means that this could not be done, mostly since its time limit was reached
    more often than `max_num_timeout` allows. A SystemExit of any other code is that code's.
    """
    if not _from_handler(error):
        return None
    if isinstance(error, SystemExit):
        return "SLURM needs its place, or its time is up: put back into the queue, it goes on from its finished chunks"
    return (
        f"its time is up, and it was not put back into the queue ({' '.join(str(error).split())}): raise "
        "hydra.launcher.max_num_timeout if need be, the same command goes on from its finished chunks"
    )


def _from_handler(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == HANDLER:
            return True
        trace = trace.tb_next
    return False
