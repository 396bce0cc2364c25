"""PGD against torchattacks, against closed forms, and its promises under randomized defenses."""

from __future__ import annotations

import pytest
import torch
from conftest import CAPTIONS
from torch import Tensor, nn

from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.select import wrongness
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Blind, Bpda, Caption
from lgap_bench.captioner.text import Fixed
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.lgap import LGAP
from lgap_bench.task import loss as losses

LINF, L2 = Threat("linf", 8 / 255), Threat("l2", 0.5)


class Counting(nn.Module):
    """Notes how many rows pass with a gradient and without, and the rows themselves."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.graded: list[int] = []
        self.queried: list[int] = []
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        (self.graded if torch.is_grad_enabled() else self.queried).append(len(x))
        self.seen.append(x.detach().clone())
        return self.model(x)


class Linear(nn.Module):
    """Two classes: logits (w.x + b, -(w.x + b)); the best perturbation against class 0 is known."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.register_buffer("w", w)
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        z = (x * self.w).flatten(1).sum(1) + self.b
        return torch.stack([z, -z], 1)


class Mean(nn.Module):
    """Class 0 where an image's mean is above 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        z = 10 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([z, -z], 1)


class Valley(nn.Module):
    """Always class 0, least surely where all pixels are 0.51: long steps jump over it, to and fro."""

    def forward(self, x: Tensor) -> Tensor:
        z = 1 + 100 * (x - 0.51).square().flatten(1).mean(1)
        return torch.stack([z, -z], 1)


class Jitter(Purifier):
    """Adds Gaussian noise."""

    randomized = True

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x + 0.1 * noise.normal(x, "jitter")


def zeros(rows: int) -> Tensor:
    return torch.zeros(rows, dtype=torch.long)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("threat, step_size, most", [(LINF, 2 / 255, 1e-6), (L2, 0.1, 1e-4)], ids=["linf", "l2"])
def test_pgd_equals_torchattacks(threat, step_size, most, batch, targeted, images, smooth, make_problem):
    import torchattacks

    x, classifier = images(batch), smooth()
    problem = make_problem(classifier, x, threat=threat)
    attack = PGD(10, step_size, start="zero", keep="last", target="random" if targeted else None)
    theirs_class = torchattacks.PGD if threat.norm == "linf" else torchattacks.PGDL2
    theirs = theirs_class(classifier, eps=threat.eps, alpha=step_size, steps=10, random_start=False)
    aims = problem.y
    if targeted:
        aims = attack.target_classes(problem)
        theirs.set_mode_targeted_by_label(quiet=True)
    ours, expected = attack(problem), theirs(x, aims)
    assert (ours - x).abs().max() > 0.01, "the attack did not move"
    deviation = (ours - expected).abs().max().item()
    assert deviation <= most, f"PGD and torchattacks differ by {deviation:.1e}"


def test_one_full_step_from_zero_is_fgsm(images, smooth, make_problem):
    import torchattacks

    x, classifier = images(3), smooth()
    ours = PGD(1, "eps", start="zero", keep="last")(make_problem(classifier, x, threat=LINF))
    torch.testing.assert_close(ours, torchattacks.FGSM(classifier, eps=LINF.eps)(x, classifier(x).argmax(1)))


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("start, loss", [("zero", "cross_entropy"), ("random", "margin")])
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("threat", [Threat("linf", 0.05), Threat("l2", 0.15)], ids=["linf", "l2"])
def test_pgd_reaches_the_best_perturbation_of_a_linear_classifier(
    threat, batch, start, loss, keep, images, make_problem
):
    x = images(batch, 4)
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(5))
    lowest = (x * w).flatten(1).sum(1).min().item()
    # a constant that leaves every image right even under the best perturbation, or `best` would stop at the first wrong
    classifier = Linear(w, 0.1 - lowest + 0.05 * w.abs().sum().item() + 0.15 * w.norm().item())
    problem = make_problem(classifier, x, y=zeros(batch), threat=threat)
    best = x - (threat.eps * w.sign() if threat.norm == "linf" else threat.eps * w / w.norm())
    assert 0 <= best.min() <= best.max() <= 1
    found = PGD(60, "eps/4", start=start, loss=loss, keep=keep)(problem)
    threat.check(found, x, problem.ids, "pgd")
    # Near the optimum the loss is flat to second order: in float32 `best` cannot see the last 1e-4 from a random start.
    torch.testing.assert_close(found, best, atol=1e-4 if start == "random" else 1e-5, rtol=0)


@pytest.mark.parametrize("threat", [LINF, L2, Threat("linf", 1.0), Threat("l2", 20)], ids=str)
@pytest.mark.parametrize("start, keep", [("zero", "last"), ("random", "best"), ("both", "best")])
def test_attacked_images_stay_in_ball_and_box(threat, start, keep, images, smooth, make_problem):
    x = images(3).sub(0.5).mul(3).add(0.5).clamp(0, 1)
    problem = make_problem(smooth(), x, threat=threat, purifier=Jitter())
    found = PGD(4, "eps/2", start=start, keep=keep, restarts=2, draws=2)(problem)
    threat.check(found, x, problem.ids, "pgd")
    assert threat.length(found - x).min() > 0.4 * min(threat.eps, 0.9)


def test_starts_are_where_they_are_said_to_be(images, smooth, make_problem):
    x = images(3)

    def begins(start: str, seed: int = 0, restarts: int = 1) -> list[Tensor]:
        classifier = Counting(smooth())
        problem = make_problem(classifier, x, threat=Threat("linf", 0.01), seed=seed)
        classifier.seen.clear()
        PGD(0, 0.001, start=start, restarts=restarts, keep="best")(problem)
        return [seen for seen, again in zip(classifier.seen, classifier.seen[1:], strict=False) if len(again)]

    assert torch.equal(begins("zero", restarts=2)[0], x)
    random, other, same = (
        begins("random", restarts=2),
        begins("random", seed=1, restarts=2),
        begins("random", restarts=2),
    )
    assert not torch.equal(random[0], x)
    assert torch.equal(random[0], same[0])
    assert not torch.equal(random[0], other[0]), "another seed starts elsewhere"
    both = begins("both", restarts=2)
    assert torch.equal(both[0], x)
    assert any(not torch.equal(seen, x) for seen in both), "the second restart starts at random"


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_restarts_start_at_different_points(threat, images, smooth, make_problem):
    problem = make_problem(smooth(), images(2), threat=threat)
    attack = PGD(1, "eps/4")
    starts = [attack.start_images(problem, restart) for restart in range(3)]
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])
    for start in starts:
        threat.check(start, problem.x, problem.ids, "pgd")


@pytest.mark.parametrize("purifier", [Purifier, Jitter])
def test_a_restart_never_makes_it_weaker(purifier, images, smooth, make_problem):
    """On the draws that choose; another count of restarts has the same first ones."""
    x = images(8)
    problem = make_problem(smooth(), x, threat=Threat("linf", 0.01), purifier=purifier())
    harms = []
    for restarts in (1, 2, 5):
        found = PGD(2, "eps/2", restarts=restarts, draws=2)(problem)
        harms.append(wrongness(problem, found, problem.stream("select").draws(4, 0, -2)))
    assert (harms[1] >= harms[0]).all()
    assert (harms[2] >= harms[1]).all()
    assert (harms[2] > harms[0]).any(), "restarts change nothing: the test shows nothing"


@pytest.mark.parametrize(
    "settings", [dict(), dict(restarts=2), dict(loss="dlr", start="both", restarts=3), dict(target="random")], ids=str
)
@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize("purifier", [Purifier, Jitter])
def test_an_image_is_attacked_alike_alone_and_among_others(purifier, threat, settings, images, smooth, make_problem):
    """In float64, where no sign step hangs on rounding; a run may still amplify 1e-15 of it to 5e-7 (measured)."""
    x, classifier = images(6, dtype=torch.float64), smooth().double()
    attack = PGD(6, "eps/3", draws=3, **settings)
    problem = make_problem(classifier, x, threat=threat, purifier=purifier())
    together = attack(problem)
    for rows in ([0], [4, 2], [5, 4, 3, 2, 1, 0]):
        deviation = (attack(problem.take(rows)) - together[rows]).abs().max().item()
        assert deviation <= 1e-5, f"samples {rows} differ by {deviation:.1e}"


def test_the_global_generator_and_the_number_of_rows_in_a_pass_change_nothing(images, smooth, make_problem):
    x, classifier, found = images(3, dtype=torch.float64), smooth().double(), []
    for seed, rows in ((0, 512), (1, 5)):
        torch.manual_seed(seed)
        found.append(
            PGD(4, "eps/3", draws=3, restarts=2)(make_problem(classifier, x, purifier=Jitter(), max_rows=rows))
        )
    torch.testing.assert_close(*found, atol=1e-9, rtol=0)
    other = PGD(4, "eps/3", draws=3, restarts=2)(make_problem(classifier, x, purifier=Jitter(), seed=1))
    assert (other - found[0]).abs().amax(dim=(1, 2, 3)).min() > 1e-3, "another seed attacks alike"


@pytest.mark.parametrize("target", ["random", "runner_up"])
def test_a_target_is_never_the_label_and_is_reached(target, images, smooth, make_problem):
    x, classifier = images(8), smooth()
    problem = make_problem(classifier, x, threat=Threat("linf", 0.2))
    attack = PGD(20, "eps/5", target=target, keep="last")
    aims = attack.target_classes(problem)
    assert (aims != problem.y).all()
    assert (classifier(attack(problem)).argmax(1) == aims).float().mean() > 0.7
    if target == "runner_up":
        assert torch.equal(aims, classifier(x).topk(2).indices[:, 1])
    else:
        again = make_problem(classifier, x, threat=problem.threat, seed=1)
        assert torch.equal(attack.target_classes(problem.take([5, 2])), aims[[5, 2]])
        assert not torch.equal(attack.target_classes(again), aims)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(target="left"), "attack.target=left is not known: use random, runner_up or null"),
        (dict(step_size="two"), "attack.step_size=two is not a number: write 2/255, 0.01 or eps/4"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message, images, smooth, make_problem):
    with pytest.raises(ValueError, match=message):
        PGD(**{"steps": 1, "step_size": 0.1, **settings})(make_problem(smooth(), images(1)))


def test_problem_and_images_are_left_as_they_were(images, smooth, make_problem):
    x, classifier = images(3), smooth()
    before, weights = x.clone(), [p.clone() for p in classifier.parameters()]
    found = PGD(3, "eps/3")(make_problem(classifier, x))
    assert torch.equal(x, before)
    assert not found.requires_grad
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(classifier.parameters(), weights, strict=True))


@pytest.mark.parametrize("view", [Blind, Bpda, Caption])
def test_lgap_is_attacked_end_to_end_under_every_view(view, prior, blip, images, smooth, make_problem):
    """And raises what the view lets the attacker aim at: the classifier's loss there, or the captioner's."""
    x, classifier = images(2), smooth()
    problem = make_problem(classifier, x, purifier=LGAP(prior, blip, 4, 0.5), view=view, captions=CAPTIONS[:2])
    noise = problem.stream("attack").draws(8)
    weight = 1.0 if view is Caption else 0.0
    found = PGD(5, "eps/4", start="zero", draws=8, caption_weight=weight, class_weight=1 - weight, keep="last")(problem)
    problem.threat.check(found, x, problem.ids, "pgd")

    def aim(images: Tensor) -> Tensor:
        if view is Caption:
            return blip.loss(images, CAPTIONS[:2])
        return torch.stack([losses.cross_entropy(z, problem.y) for z in problem.view.query(images, noise)]).mean(0)

    moved = aim(found) - aim(x)
    assert (moved > 1e-3).all() or view is Bpda, moved  # the random prior bears no likeness to the identity
    assert (found != x).flatten(1).any(1).all()


def test_full_pgd_raises_the_loss_of_the_whole_defense(prior, images, smooth, make_problem):
    x = images(4)
    problem = make_problem(smooth(), x, purifier=LGAP(prior, Fixed("a photo"), 4, 0.5), threat=Threat("linf", 0.1))
    score = problem.stream("score").draws(8)

    def risk(images: Tensor) -> float:
        return sum(losses.margin(each, problem.y).mean().item() for each in problem.view.query(images, score))

    found = PGD(8, "eps/4", draws=4)(problem)
    assert risk(found) > risk(x) + 0.1
