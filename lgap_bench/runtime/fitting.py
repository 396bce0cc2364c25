"""How many rows of a batch a GPU holds at once: measured by trial passes, once per cell."""

from __future__ import annotations

from collections.abc import Callable

SPARE = 0.85  # of the free memory; the rest is for what attacks keep beside a pass, and for fragmentation
MOST = 4096  # rows; more in one pass saves nothing


def rows_that_fit(peak: Callable[[int], int], free: int) -> int:
    """The largest power of two of rows whose pass fits into `free` bytes, at least 1 and at most 4096.

    `peak` runs a pass of that many rows and says how many bytes it needed at most beyond what was there. A pass of one row
    and one of three tell what a row costs and what every pass costs. A power of two, so that a little more or less free
    memory gives the same number.
    """
    one, three = peak(1), peak(3)
    row = max((three - one) / 2, 1)
    fit = int((SPARE * free - (one - row)) // row)
    return 2 ** (min(max(fit, 1), MOST).bit_length() - 1)


def peak_of(run: Callable[[], object], device: str) -> int:
    """Bytes that a call needs at most on a CUDA device, beyond what is allocated when it begins."""
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def free_memory(device: str) -> int:
    """Bytes that a process can still have: the driver's, and what torch holds of it unused."""
    import torch

    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])
