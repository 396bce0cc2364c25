"""A killed attack goes on from its journal: the same images to the last bit, and no call of the defense is made twice."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import SMALL, called, only_record
from conftest import CAPTIONS
from torch import Tensor, nn
from toys import SIDE, Jitter, Linear

from lgap_bench.attack.autoattack import APGD, AutoAttack
from lgap_bench.attack.carlini_wagner import CarliniWagner
from lgap_bench.attack.chunk_journal import ChunkJournal, Costs
from lgap_bench.attack.deepfool import DeepFool
from lgap_bench.attack.ensemble import Ensemble
from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.problem import Problem, caption_term, estimate
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.torchattack import CW, EOTPGD, Square
from lgap_bench.attack.view import Bpda, Caption, Full, Query
from lgap_bench.captioner.seen import Seen
from lgap_bench.evaluation.loop import _attacked
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.lgap import LGAP
from lgap_bench.runtime.segments import Entry, Segments
from lgap_bench.task.loss import cross_entropy

FREE = Costs(0, float("inf"), float("inf"))  # whatever a call took, it is worth keeping


class Killed(BaseException):
    """What no attack catches."""


class Mortal(nn.Module):
    """A classifier that counts its passes, forward and backward, and dies in one of them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.passes, self.last = body, 0, -1

    def forward(self, x: Tensor) -> Tensor:
        self._live()
        logits = self.body(x)
        if logits.requires_grad:
            logits.register_hook(self._live)
        return logits

    def _live(self, gradient: Tensor | None = None) -> None:
        self.passes += 1
        if self.passes == self.last:
            raise Killed


@dataclass(frozen=True)
class Own:
    """An attack of a user's own: it queries, follows gradients and reads captions as it likes."""

    def __call__(self, problem: Problem) -> Tensor:
        x, noise = problem.x.clone(), problem.stream("attack").draws()
        generator = torch.Generator().manual_seed(1)
        for step in range(4):
            observed = problem.view.observe(x, noise)
            moving = x.clone().requires_grad_(True)
            with torch.enable_grad():
                logits = problem.view.logits(moving, noise, observed)
                cross_entropy(logits, problem.y).sum().backward()
            tried = problem.threat.project(x + problem.threat.ascend(moving.grad, problem.threat.eps / 2), problem.x)
            jumped = problem.threat.project(x + torch.randn(x.shape, generator=generator), problem.x)
            for each in (tried, jumped):
                right = problem.view.query(each, problem.stream("select").draws(2, 0, step)).argmax(-1) == problem.y
                x = torch.where((~right).all(0).view(-1, 1, 1, 1), each, x)
            x = tried if step % 2 else x
        return x


L2 = Threat("l2", 0.8)
STEPS = {"steps": 3, "step_size": "eps/2"}
MEMBERS = {"pgd": PGD(**STEPS, draws=2), "apgd": APGD(n_iter=3, draws=2, select_draws=2)}
OUTSIDE = {
    "outside": {"bpda": PGD(2, "eps/2"), "square": Square(4, draws=2)},
    "views": {"bpda": "bpda", "square": "query"},
}
SHORT = {"n_iter": 4, "n_queries": 6, "select_draws": 2, "confirm_draws": 4}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "PGD with restarts and EOT": (PGD(**STEPS, start="both", restarts=2, draws=2), {"purifier": Jitter}),
    "PGD on a deterministic view": (PGD(**STEPS), {}),
    "PGD in passes": (PGD(**STEPS, draws=3), {"purifier": Jitter, "max_rows": 2}),
    "BPDA": (PGD(**STEPS, draws=2), {"purifier": Jitter, "view": Bpda}),
    "APGD": (APGD(n_iter=4, draws=2, select_draws=2), {"purifier": Jitter}),
    "AutoAttack rand": (AutoAttack("rand", 2, **SHORT), {"purifier": Jitter}),
    "AutoAttack standard, randomized": (AutoAttack("standard", 2, **SHORT), {"purifier": Jitter}),
    "AutoAttack standard, as published": (AutoAttack("standard", 1, **SHORT), {"threat": Threat("linf", 0.004), "body": Linear(4)}),
    "AutoAttack in passes": (APGD(n_iter=4), {"max_rows": 2}),
    "EOTPGD of torchattacks": (EOTPGD(3, draws=2, select_draws=2), {"purifier": Jitter}),
    "CW of torchattacks": (CW(steps=4, select_draws=2), {"purifier": Jitter, "threat": L2}),
    "Square of torchattacks": (Square(8, draws=2), {"purifier": Jitter, "view": Query}),
    "Square on a deterministic view": (Square(8), {"view": Query, "threat": Threat("linf", 0.004)}),
    "DeepFool": (DeepFool(4, draws=2, candidates=3), {"purifier": Jitter, "threat": L2}),
    "Carlini and Wagner": (CarliniWagner(search=2, steps=3, draws=2, select_draws=2), {"purifier": Jitter, "threat": L2}),
    "a user's own": (Own(), {"purifier": Jitter}),
    "an ensemble": (Ensemble(MEMBERS, **OUTSIDE, noisy_draws=3, select_draws=2, confirm_draws=4), {"purifier": Jitter}),
}  # fmt: skip


@pytest.fixture
def make(images, make_problem) -> Callable[..., Problem]:
    def problem(size: int = 3, purifier: Any = Purifier, side: int = SIDE, **given: Any) -> Problem:
        held = purifier() if isinstance(purifier, type) else purifier
        body = given.pop("body", None) or Linear(10)
        return make_problem(Mortal(body.requires_grad_(False)), images(size, side), purifier=held, **given)

    return problem


def attacked(
    attack: Any, problem: Problem, folder: Path | None, last: int = -1, **journal: Any
) -> tuple[dict[str, Tensor] | None, int]:
    """The attack's images and what it published, and the classifier's passes; None where it died in the `last` one."""
    defense = problem.view.defense
    mortal = defense.classifier
    mortal.passes, mortal.last = 0, last
    problem = replace(problem, published={}, notes=[])
    settings = {"every": 0, "say": _unheard, "costs": FREE, **journal}
    with defense.purifier.remembering() as seen:
        try:
            if folder is None:
                found = attack(problem)
            else:
                with ChunkJournal(folder, "this", memory=seen, **settings) as kept:
                    found = attack(replace(problem, journal=kept))
        except Killed:
            return None, mortal.passes
    return {"x": found, **problem.published}, mortal.passes


def _unheard(text: str) -> None:
    raise AssertionError(f"nothing went wrong, and yet: {text}")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key].nan_to_num(), b[key].nan_to_num()) for key in a)


def check(attack: Any, problem: Problem, folder: Path, most: int = 2) -> None:
    """Undisturbed, with a journal, and killed in several passes: the same, with at most `most` passes of one call again."""
    plain, total = attacked(attack, problem, None)
    kept, passes = attacked(attack, problem, folder / "undisturbed")
    assert same(plain, kept)
    assert passes == total, "a journal that is not needed costs no pass"
    again, passes = attacked(attack, problem, folder / "undisturbed")
    assert same(plain, again)
    assert passes == 0, "a whole journal answers every call"
    for last in sorted({1, total // 2, total}):
        dead, done = attacked(attack, problem, folder / str(last), last)
        assert (dead, done) == (None, last), "it was killed too late to show anything"
        resumed, left = attacked(attack, problem, folder / str(last))
        assert same(plain, resumed), f"killed in pass {last} of {total}"
        assert left <= total - last + most, f"{left} passes after a kill in {last} of {total}"
    first, third = attacked(attack, problem, folder / "twice", total // 3), total // 2
    twice = attacked(attack, problem, folder / "twice", max(1, third - first[1]))
    resumed, _ = attacked(attack, problem, folder / "twice")
    assert twice[0] is None
    assert same(plain, resumed), "killed a second time"


@pytest.mark.parametrize("case", CASES)
def test_a_killed_attack_ends_with_the_same_images_and_repeats_no_call(case, make, tmp_path):
    attack, given = CASES[case]
    # A call is an estimate of several passes, forward and backward; DeepFool's has a backward pass per class.
    check(
        attack,
        make(**given),
        tmp_path,
        most={"PGD in passes": 12, "AutoAttack in passes": 6, "an ensemble": 4}.get(case, 3),
    )


@pytest.mark.parametrize("case", [pytest.param("ensemble", marks=pytest.mark.slow), "caption", "joint"])
def test_a_killed_attack_on_captions_ends_with_the_same_captions(case, blip, prior, make, smooth, tmp_path):
    attack, view = {
        "ensemble": (Ensemble({"pgd": PGD(2, "eps/2", draws=2)}, captioned={"joint": PGD(2, "eps/2", caption_weight=1.0)},
                              select_draws=2, confirm_draws=2), Full),
        "caption": (PGD(3, "eps/2", class_weight=0.0, caption_weight=1.0, caption_target="nearest"), Caption),
        "joint": (PGD(3, "eps/2", caption_weight=1.0, caption_target="nearest", restarts=2, select_draws=2), Full),
    }[case]  # fmt: skip
    problem = make(2, LGAP(prior, blip, steps=4, strength=0.5), 32, body=smooth(32), view=view, captions=CAPTIONS[:2])
    check(attack, replace(problem, class_captions=tuple(CAPTIONS)), tmp_path, most=3)


def test_a_caption_term_that_an_attack_asks_for_itself_is_kept(blip, prior, make, smooth, tmp_path):
    class Terms:
        def __call__(self, problem: Problem) -> Tensor:
            _, gradient = caption_term(problem, problem.x)
            problem.view.query(problem.x, problem.stream("attack").draws())
            return problem.x + gradient.sign() / 255

    problem = make(2, LGAP(prior, blip, steps=4, strength=0.5), 32, body=smooth(32), captions=CAPTIONS[:2])
    asked: list[int] = []
    hook = blip.model.vision_model.register_forward_hook(lambda *_: asked.append(1))
    first, _ = attacked(Terms(), problem, tmp_path)
    assert asked
    asked.clear()
    again, _ = attacked(Terms(), problem, tmp_path)
    assert same(first, again)
    assert asked == []
    hook.remove()


def test_a_chunk_of_which_one_sample_fails_is_the_same_after_a_kill(make, tmp_path):
    class Sore(Purifier):
        """The gradient of images with a bright first pixel is not a number."""

        def forward(self, x: Tensor, noise: Noise, observed: Any = None) -> Tensor:
            rows = [row + 0 * (row - row.detach()).sqrt() if row[0, 0, 0] > 0.8 else row for row in x]
            return torch.stack(rows)

    problem = make(4, Sore)
    problem.x[:, :, 0, 0] = torch.tensor([0.3, 0.95, 0.3, 0.3]).view(4, 1)

    class Parts:
        attack = PGD(**STEPS, draws=1)

    def chunk(problem: Problem) -> Tensor:
        images, failed = _attacked(Parts(), problem)
        problem.published["failed"] = failed
        return images

    plain, total = attacked(chunk, problem, None)
    assert plain["failed"].tolist() == [False, True, False, False]
    for last in range(1, total, 3):
        attacked(chunk, problem, tmp_path / str(last), last)
        assert same(plain, attacked(chunk, problem, tmp_path / str(last))[0]), last


# What may be wrong with a journal


@pytest.fixture
def half(make, tmp_path):
    """A problem, its attack, what an undisturbed run finds, and the folder of a journal of half of it."""
    problem, attack = make(3, Jitter), PGD(**STEPS, restarts=3, draws=2, confirm_draws=0)
    plain, total = attacked(attack, problem, None)
    attacked(attack, problem, tmp_path / "half", total // 2)
    assert len(list((tmp_path / "half").glob("*.npz"))) > 4
    return problem, attack, plain, tmp_path / "half", total


def resumed(half, said: list[str], problem: Problem | None = None) -> int:
    """The passes of a resumed run, whose images have to be those of an undisturbed one."""
    own, attack, plain, folder, _ = half
    found, passes = attacked(attack, problem or own, folder, say=said.append)
    if problem is None:
        assert same(plain, found)
    return passes


@pytest.mark.parametrize("how", ["cut off", "emptied", "flipped", "another file"])
def test_a_damaged_file_ends_the_journal_there_with_one_line(how, half):
    folder, total = half[3], half[4]
    files, said = sorted(folder.glob("*.npz")), []
    content = bytearray(files[2].read_bytes())
    flipped = (
        bytes(content[: len(content) // 4])
        + bytes([content[len(content) // 4] ^ 1])
        + bytes(content[len(content) // 4 + 1 :])
    )
    broken = {
        "cut off": bytes(content[: len(content) // 2]),
        "emptied": b"",
        "flipped": flipped,
        "another file": b"{}" * 99,
    }
    files[2].write_bytes(broken[how])
    before = total // 2 - resumed(half, said)
    assert len(said) == 1, said
    assert str(files[2]) in said[0]
    assert "computed again" in said[0]
    assert "\n" not in said[0]
    assert before < total // 2, "what came after it was computed again"
    assert resumed(half, said) == 0, "what was computed again is kept in its place"
    assert len(said) == 1, "said once"


def test_no_damage_to_a_file_gives_a_wrong_number_or_an_error_of_another_kind(tmp_path):
    held = {number: np.random.default_rng(number).random((3, 4)) for number in range(12)}
    store, draw = Segments(tmp_path, "this"), random.Random(0)
    for first in (0, 4, 8):
        rows = {n: Entry("a", f"{n}", 0.1, (held[n],), ((4, 1),), {"made": {}}) for n in range(first, first + 4)}
        store.write(rows)
    whole = {file: file.read_bytes() for file in sorted(tmp_path.glob("*.npz"))}
    told = 0
    for _ in range(400):
        for file, content in whole.items():
            file.write_bytes(content)
        file, content = draw.choice(list(whole.items()))
        at, size = draw.randrange(len(content)), draw.choice((0, 1, 8))
        file.write_bytes(content[:at] + draw.randbytes(size) + content[at + size :] if size else content[:at])
        again = Segments(tmp_path, "this")
        told += again.refused is not None
        for number in list(again.index):
            try:
                entry = again.get(number)
            except ValueError:
                told += 1
                break
            assert entry is not None
            assert (entry.digest, entry.strides) == (f"{number}", ((4, 1),))
            assert np.array_equal(entry.arrays[0], held[number])
        again.close()
    assert told > 300


def test_the_journal_of_another_chunk_is_refused(half, tmp_path):
    problem, attack, plain, folder, total = half
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    said: list[str] = []
    mortal = problem.view.defense.classifier
    mortal.passes = 0
    mortal.last = -1
    with ChunkJournal(other, "that", 0, said.append, costs=FREE) as journal:
        found = attack(replace(problem, journal=journal))
    assert torch.equal(found, plain["x"])
    assert mortal.passes == total, "nothing of it was used"
    assert len(said) == 1
    assert "belongs to this" in said[0]


def test_a_journal_of_another_course_counts_up_to_where_they_part(half, make):
    problem, said = half[0], []
    moved = replace(problem, x=problem.x + 0.01)
    assert resumed(half, said, moved) == half[4], "the first call is another one already"
    assert len(said) == 1
    assert "call 1 is another one now" in said[0]
    assert resumed(half, said, moved) == 0, "and it is kept in the place of the old one"
    assert len(said) == 1


def test_a_full_disk_ends_the_journal_and_not_the_attack(half, monkeypatch):
    from lgap_bench.runtime import segments

    def full(file: Path, arrays: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(segments, "write_npz", full)
    said: list[str] = []
    assert 0 < resumed(half, said) < half[4]
    assert len(said) == 1, "once"
    assert "the disk is full" in said[0]


def test_a_journal_that_grows_too_large_says_so_once_and_goes_no_further(half, monkeypatch):
    from lgap_bench.attack import chunk_journal

    monkeypatch.setattr(chunk_journal, "MOST", 1)
    count, said = len(list(half[3].glob("*.npz"))), []
    resumed(half, said)
    assert len(said) == 1
    assert "GiB" in said[0]
    assert len(list(half[3].glob("*.npz"))) == count + 1


def test_what_is_cheaper_to_compute_is_not_kept_and_nothing_is_written_before_its_time(make, tmp_path):
    problem, attack = make(3, Jitter), PGD(**STEPS, draws=2)
    plain, total = attacked(attack, problem, tmp_path / "cheap", costs=Costs(0, 1.0, 1.0))
    again, passes = attacked(attack, problem, tmp_path / "cheap", costs=Costs(0, 1.0, 1.0))
    assert same(plain, again)
    assert passes == total
    assert not (tmp_path / "cheap").exists()
    attacked(attack, problem, tmp_path / "early", every=60)
    assert not (tmp_path / "early").exists()


def test_an_interruption_writes_what_waits_and_an_error_does_not(make, tmp_path):
    def falls(error: type[BaseException]) -> Callable[[Problem], Tensor]:
        def attack(problem: Problem) -> Tensor:
            estimate(problem, problem.x, problem.stream("attack").draws(), cross_entropy)
            time.sleep(1.1)
            problem.view.query(problem.x, problem.stream("attack").draws())
            raise error

        return attack

    class Slow(Purifier):
        def forward(self, x: Tensor, noise: Noise, observed: Any = None) -> Tensor:
            time.sleep(1.1)
            return x

    for error, files in ((KeyboardInterrupt, 1), (ValueError, 0)):
        with pytest.raises(error):
            attacked(falls(error), make(3, Slow), tmp_path / error.__name__, every=60)
        assert len(list((tmp_path / error.__name__).glob("*.npz"))) == files, error


def test_strides_survive_since_sums_run_in_the_order_of_memory(tmp_path):
    given = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    for _ in range(2):
        with ChunkJournal(tmp_path, "this", 0, _unheard, costs=FREE) as journal:
            (found,) = journal.tensors("a", (given,), lambda: (given.clone(),))
        assert found.stride() == given.stride()
        assert torch.equal(found, given)


@pytest.mark.parametrize("knows", [True, False], ids=["torch tells", "torch does not tell"])
def test_several_gradients_of_one_forward_pass_are_kept_each(knows, tmp_path, monkeypatch):
    name = "_get_current_graph_task_keep_graph"
    assert hasattr(torch._C._autograd, name), "this torch has no word for it any more: memory is held longer"
    if not knows:
        monkeypatch.delattr(torch._C._autograd, name)

    def slopes(journal: ChunkJournal) -> list[Tensor]:
        x = torch.arange(3.0).requires_grad_(True)
        y = journal.differentiable("f", x, (), lambda z: z**2)
        first = torch.autograd.grad(y[0], x, retain_graph=True)
        return [*first, *torch.autograd.grad(y[2], x)]

    for count in (3, 1, 2):  # the journal ends within them
        for keep in range(2):
            shutil.rmtree(tmp_path / str(count), ignore_errors=not keep) if not keep else None
            with ChunkJournal(tmp_path / str(count), "this", 0, _unheard, costs=FREE) as journal:
                assert [each.tolist() for each in slopes(journal)] == [[0, 0, 0], [0, 0, 4]]
                assert journal.calls == 3
            for file in sorted((tmp_path / str(count)).glob("*.npz"))[count:]:
                file.unlink()


def test_images_may_be_written_into_between_the_passes(tmp_path):
    for _ in range(2):
        with ChunkJournal(tmp_path, "this", 0, _unheard, costs=FREE) as journal:
            x = torch.arange(3.0).requires_grad_(True)
            y = journal.differentiable("f", x, (), lambda z: z.clone() ** 2)
            with torch.no_grad():
                x.zero_()
            assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 2, 4]
        sorted(tmp_path.glob("*.npz"))[1].unlink()  # of the backward pass alone


def test_a_view_that_grants_no_gradient_grants_none_from_a_journal_either(make, tmp_path):
    problem = make(2, view=Query)
    for _ in range(2):
        with ChunkJournal(tmp_path, "this", 0, _unheard, costs=FREE) as journal:
            x = problem.x.clone().requires_grad_(True)
            logits = replace(problem, journal=journal).view.logits(x, problem.stream("attack").draws())
        assert not logits.requires_grad


def test_the_oldest_captions_go_first_whatever_a_journal_has_answered(blip, images):
    class Named(nn.Module):
        by_image = True

        def forward(self, x: Tensor, noise: Noise | None) -> list[str]:
            return [f"{float(image.sum()):.3f}" for image in x]

    x, noise = images(5), Noise((0,) * 5, (0,) * 5, 0)
    seen, other = Seen(most=3), Seen(most=3)
    for rows in ([0, 1], [1, 2], [0, 3], [4, 4]):
        mark = seen.mark()
        assert seen.captions(Named(), x[rows], noise.take(rows)) == Named()(x[rows], None)
        other.restore(seen.since(mark))
    assert list(seen.held.items()) == list(other.held.items())
    assert len(seen.held) == 3


# Whole cells


def whole(outputs: Path) -> bytes:
    """All numbers of the record, with the SHA-256 of its samples."""
    return (only_record(outputs) / "summary.json").read_bytes()


CELLS = {
    "full": ["purifier=lgap", "attack=full", "attack.steps=6"],
    "autoattack": ["purifier=lgap", "attack=autoattack_rand", "attack.n_iter=6", "attack.draws=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_is_killed_within_a_chunk_ends_with_the_same_record(name, tmp_path):
    words = ["run", "n=2", "chunk=2", "score_draws=2", "threads=1", "logger=none", "save_every=0", *CELLS[name]]
    assert called(*words, f"outputs={tmp_path / 'whole'}").returncode == 0
    killed, kept = tmp_path / "killed", 0
    for files in (2, 5):
        process = subprocess.Popen([sys.executable, "-m", "lgap_bench.cli", *words, f"outputs={killed}"])
        while len(list(killed.glob("records/*/chunks/00000.journal/*.npz"))) < kept + files:
            assert process.poll() is None, "the cell ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = len(list(killed.glob("records/*/chunks/00000.journal/*.npz")))
    assert called(*words, f"outputs={killed}").returncode == 0
    assert whole(killed) == whole(tmp_path / "whole")
    assert not (only_record(killed) / "chunks").exists()


def test_a_journal_changes_no_number_and_leaves_no_file(tmp_path):
    words = ["run", "purifier=lgap", "attack=bpda", *SMALL, "n=4", "logger=none"]
    for every in ("0", "180", "null"):
        done = called(*words, f"save_every={every}", f"outputs={tmp_path / every}")
        assert done.returncode == 0, done.stderr
        assert not (only_record(tmp_path / every) / "chunks").exists()
    assert len({whole(tmp_path / every) for every in ("0", "180", "null")}) == 1


@pytest.mark.parametrize("value", ["-1", "soon", "True"])
def test_a_wrong_time_between_two_files_is_one_line(value, tmp_path):
    done = called("run", f"save_every={value}", f"outputs={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"save_every={value}" in done.stderr
