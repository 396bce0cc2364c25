"""A disk that is really full, at different moments of a sweep: one line, and the same command goes on once there is space."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cells import called

from lgap_bench.record import records

WORDS = [
    *("run", "-m", "purifier=downsample", "attack=bpda", "attack.steps=2", "score_draws=2", "n=4", "chunk=2"),
    "threads=1",
]


def mounted(*words: str) -> bool:
    """Whether a call of mount succeeds."""
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`disk(kilobytes)`: a disk of this size; the second call makes the same disk larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(kilobytes: int) -> Path:
        more = "remount," if folder.is_mount() else ""
        if not mounted("-t", "tmpfs", "-o", f"{more}size={kilobytes}k", "none", str(folder)):
            pytest.skip("mounting a small disk needs root")
        return folder

    yield sized
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    "kilobytes, file", [(4, "sweeps/"), (12, "sweeps/"), (48, "chunks/00000.npz"), (104, "records/")]
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(kilobytes, file, disk, tmp_path):
    folder = disk(kilobytes)
    done = called(*WORDS, f"outputs={folder}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("lgap-bench: disk full: ")]
    assert len(told) == 1, done.stderr
    assert file in told[0]
    disk(8192)
    again = called(*WORDS, f"outputs={folder}")
    assert again.returncode == 0, again.stderr
    calm = called(*WORDS, f"outputs={tmp_path / 'calm'}")
    assert calm.returncode == 0, calm.stderr
    (held,), (wanted,) = records(folder), records(tmp_path / "calm")
    held.check()
    assert repr(held.samples()) == repr(wanted.samples())
