"""What a cell needs at most is counted from its start, not from the process's."""

from pathlib import Path

import pytest
import torch

from lgap_bench.runtime import peak
from lgap_bench.runtime.device import CPU

LARGE = 256  # MiB, far above what the test itself needs

pytestmark = pytest.mark.skipif(not peak.tells(CPU), reason="this system keeps one peak per process")


def fill() -> None:
    torch.zeros(LARGE * 2**18).fill_(1.0)  # float32, every page touched


def test_a_cells_peak_holds_none_of_the_cells_before_it() -> None:
    peak.restart(CPU)
    before = peak.held(CPU)
    fill()
    assert peak.peak(CPU) - before > 0.9 * LARGE
    peak.restart(CPU)
    assert peak.peak(CPU) - before < 0.5 * LARGE


def test_where_the_system_does_not_tell_the_processes_own_peak_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill()
    monkeypatch.setattr(peak, "ITSELF", tmp_path)
    assert not peak.tells(CPU)
    peak.restart(CPU)
    assert peak.peak(CPU) > LARGE
    assert peak.held(CPU) == 0.0
