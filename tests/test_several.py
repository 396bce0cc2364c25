"""Images with several labels, as attacks meet them and as they are scored: on a linear model whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cells import lgap_bench
from toys import SIDE, Jitter, Linear

from lgap_bench.attack.autoattack import APGD
from lgap_bench.attack.carlini_wagner import CarliniWagner
from lgap_bench.attack.deepfool import DeepFool
from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.problem import Problem, estimate
from lgap_bench.attack.several import one_class
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Full
from lgap_bench.dataset.base import DataSet
from lgap_bench.defense import Defense
from lgap_bench.noise import streams
from lgap_bench.purifier.base import Purifier
from lgap_bench.task import loss as losses
from lgap_bench.task.multi_label import MULTI_LABEL, first, merged

CLASSES = 12  # the targeted Auto-PGD has nine targets


def make(size: int, purifier: Purifier | None = None, threat: Threat | None = None) -> tuple[Problem, torch.Tensor]:
    """Images whose two best classes, and one far from them, are in them."""
    generator = torch.Generator().manual_seed(size)
    x = 0.3 + 0.4 * torch.rand(size, 3, SIDE, SIDE, generator=generator)
    defense = Defense(purifier or Purifier(), Linear(CLASSES))
    logits = defense.classify(x)
    order = logits.argsort(1, descending=True)
    labels = torch.zeros(size, CLASSES, dtype=torch.bool)
    for place in (0, 1, 5):
        labels.scatter_(1, order[:, place : place + 1], True)
    ids = tuple(range(100, 100 + size))
    problem = Problem(
        Full(defense), x, first(labels), ids, threat or Threat("linf", 0.1), 0, task=MULTI_LABEL,
        present=dict(zip(ids, labels, strict=True)),
    )  # fmt: skip
    return problem, labels


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_best_of_an_images_classes_stands_for_all(size):
    problem, labels = make(size)
    raw = problem.view.defense.classify(problem.x)
    seen = problem.view.query(problem.x, problem.stream("attack").draws())[0]
    best = raw.masked_fill(~labels, -torch.inf).amax(1)
    assert torch.equal(seen.gather(1, problem.y[:, None]).squeeze(1), best)
    assert torch.equal(seen.masked_fill(labels, 0), raw.masked_fill(labels, 0)), "other classes are as they were"
    wrong = raw.masked_fill(labels, -torch.inf).amax(1)
    assert torch.allclose(losses.margin(seen, problem.y), wrong - best)
    right = labels.gather(1, raw.argmax(1, keepdim=True)).squeeze(1)
    assert torch.equal(problem.task.right(seen, problem.y), right)


def test_merging_agrees_with_membership_on_any_logits():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 50, 7, generator=generator), torch.rand(50, 7, generator=generator) < 0.4
    labels[:, 2] |= ~labels.any(1)
    right = labels.expand(4, -1, -1).gather(2, logits.argmax(2, keepdim=True)).squeeze(2)
    assert torch.equal(merged(logits, labels).argmax(2) == first(labels), right)


def test_its_gradient_is_that_of_finite_differences():
    problem, _ = make(3)
    double = Defense(Purifier(), Linear(CLASSES).double())
    view = one_class(Full(double), problem.present)
    x, noise = problem.x.double(), problem.stream("attack").draws()
    leaf = x.clone().requires_grad_(True)
    value = losses.cross_entropy(view.logits(leaf, noise), problem.y).sum()
    (gradient,) = torch.autograd.grad(value, leaf)
    step = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    ends = [losses.cross_entropy(view.logits(x + s * step, noise), problem.y).sum() for s in (1e-6, -1e-6)]
    assert float((ends[0] - ends[1]) / 2e-6) == pytest.approx(float((gradient * step).sum()), rel=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_pgd_brings_a_class_to_the_top_that_is_not_in_the_image(size):
    problem, labels = make(size, threat=Threat("linf", 0.2))
    x_adv = PGD(steps=20, step_size="eps/4", keep="best")(problem)
    top = problem.view.defense.classify(x_adv).argmax(1)
    assert not labels.gather(1, top[:, None]).any()


def test_a_random_target_is_never_a_class_of_the_image_and_all_others_are_met():
    problem, labels = make(8)
    met = set()
    for seed in range(100):
        other = Problem(problem.view, problem.x, problem.y, problem.ids, problem.threat, seed, present=problem.present)
        targets = PGD(steps=1, step_size="eps", target="random").target_classes(other)
        assert not labels.gather(1, targets[:, None]).any()
        met.add(int(targets[0]))
    assert met == set((~labels[0]).nonzero().flatten().tolist())


def test_one_label_draws_the_targets_that_it_always_drew():
    problem, _ = make(8)
    single = Problem(Full(problem.view.defense), problem.x, problem.y, problem.ids, problem.threat, 0)
    from lgap_bench.noise import derive

    shifts = torch.tensor([1 + derive(0, "target", each) % (CLASSES - 1) for each in problem.ids])
    targets = PGD(steps=1, step_size="eps", target="random").target_classes(single)
    assert torch.equal(targets, (problem.y + shifts) % CLASSES)


@pytest.mark.parametrize(
    "attack", [CarliniWagner(steps=300, learning_rate=0.01), DeepFool(candidates=11)], ids=["cw", "deepfool"]
)
def test_without_a_budget_they_cross_and_not_far_behind_the_nearest_boundary(attack):
    problem, labels = make(8, threat=Threat("l2", (3 * SIDE * SIDE) ** 0.5))
    linear = problem.view.defense.classifier
    logits = linear(problem.x)
    # A boundary towards class k is crossed where k is above all of the image's own classes; by one of them at least.
    gap = logits.masked_fill(~labels, -torch.inf).amax(1, keepdim=True) - logits
    best = logits.masked_fill(~labels, -torch.inf).argmax(1)
    lengths = (linear.weight[None] - linear.weight[best][:, None]).norm(dim=2)
    least = (gap / lengths.clamp_min(1e-12)).masked_fill(labels, torch.inf).amin(1)
    x_adv = attack(problem)
    top = linear(x_adv).argmax(1)
    assert not labels.gather(1, top[:, None]).any()
    found = (x_adv - problem.x).flatten(1).norm(dim=1)
    assert (found >= least - 1e-4).all(), "nearer than the nearest: it was not crossed"
    # The runner-up among the image's own classes may stand in the way, so the way can be longer than to the first boundary.
    assert float((found / least).median()) < 1.6


@pytest.mark.parametrize("loss", ["cross_entropy", "targeted_dlr"])
@pytest.mark.parametrize("purifier", [None, Jitter()], ids=["deterministic", "randomized"])
def test_auto_pgd_attacks_what_is_scored(loss, purifier):
    problem, labels = make(3, purifier=purifier, threat=Threat("linf", 0.2))
    x_adv = APGD(loss=loss, n_iter=20, draws=4)(problem)
    top = problem.view.defense.classify(x_adv).argmax(1)
    assert not labels.gather(1, top[:, None]).any()


def test_a_part_of_a_batch_that_nobody_names_is_refused():
    problem, _ = make(3)
    from lgap_bench.noise import Noise

    with pytest.raises(ValueError, match="without saying which"):
        problem.view.logits(problem.x, Noise((0,) * 3, (-1,) * 3, 0))


def test_scores_are_kept_as_they_are_and_draws_apart():
    problem, labels = make(3, purifier=Jitter())
    view = Full(problem.view.defense)
    logits = view.query(problem.x, streams(0, problem.ids)["score"].draws(4))
    columns = MULTI_LABEL.columns("clean", logits, labels)
    assert columns["clean_scores"].shape == (4, 3, CLASSES)
    assert np.allclose(columns["clean_scores"], logits.numpy())
    tops = logits.argmax(2)
    assert np.array_equal(columns["clean_right"], labels.expand(4, -1, -1).gather(2, tops[..., None])[..., 0].numpy())
    assert ((columns["clean_margin"] > 0) == columns["clean_right"]).all()
    noise = problem.stream("attack").draws(4)
    assert torch.equal(
        estimate(problem, problem.x, noise, losses.margin).correct,
        (estimate(problem, problem.x, noise, losses.margin).logits.argmax(2) == problem.y),
    )


def test_an_image_without_a_label_is_refused():
    with pytest.raises(ValueError, match="image 8 has no label"):
        DataSet(
            "toy", "test", torch.rand(2, 3, 4, 4), torch.tensor([0, 0]), torch.tensor([7, 8]), ("a", "b"), "a {label}",
            present=torch.tensor([[True, False], [False, False]]),
        )  # fmt: skip
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        DataSet(
            "toy", "test", torch.rand(2, 3, 4, 4), torch.tensor([0, 0]), torch.tensor([7, 8]), ("a", "b"), "a {label}",
            captions=("a a",),
        )  # fmt: skip


def test_training_on_images_of_several_labels_is_refused_instead_of_taking_their_first(tmp_path):
    done = lgap_bench(
        "run", "dataset=scenes", "purifier=none", "finetune=clean", "attack=none", "n=2", f"outputs={tmp_path}"
    )
    assert done.returncode == 1
    assert "know one class per image, and dataset=scenes has several: use finetune=none" in done.stderr
