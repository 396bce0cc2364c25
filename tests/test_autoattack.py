"""AutoAttack through our adapter: the library's own images on deterministic views, sound bookkeeping on randomized ones."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from lgap_bench.attack.autoattack import APGD, MEMBERS, AutoAttack, build_library
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Bpda, Full
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier
from lgap_bench.runtime import libraries

THREATS = {"linf": Threat("linf", 3 / 255), "l2": Threat("l2", 0.2)}  # of eight samples some break and some hold
SHORT = AutoAttack("standard", draws=2, n_iter=4, n_queries=20, select_draws=2)
QUERIES = 500  # of Square in place of 5000, which is all of the time here
NORM = {"linf": "Linf", "l2": "L2"}


class Jitter(Purifier):
    """Adds noise: the simplest randomized purifier."""

    randomized = True

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x + 0.05 * noise.normal(x, "jitter")


class Poison(Purifier):
    """Its gradient is not a number."""

    def __init__(self, randomized: bool) -> None:
        super().__init__()
        self.randomized = randomized

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x + 0 * (x - x.detach()).sqrt()


class GradientKiller(Purifier):
    """Hands the image on without its gradient."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x.detach()


def directly(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, version: str) -> tuple[Tensor, Tensor]:
    """The library called as its README says."""
    kind = libraries.autoattack().AutoAttack
    attack = kind(model, norm=NORM[threat.norm], eps=threat.eps, seed=0, version=version)
    attack.square.n_queries = QUERIES
    with torch.random.fork_rng(devices=[]):
        return attack.run_standard_evaluation(x, y, batch_size=len(x))


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("norm", THREATS)
def test_a_deterministic_view_gets_the_library_itself(ten, images, make_problem, norm, size):
    x = images(size)
    y = ten(x).argmax(1)
    y[size // 2] = (y[size // 2] + (size > 1)) % 10  # where there are several, one is wrong from the start
    problem = make_problem(ten, x.clone(), y, threat=THREATS[norm])
    found = AutoAttack("standard", n_queries=QUERIES)(problem)
    expected, predicted = directly(ten, x, y, THREATS[norm], "standard")
    assert torch.equal(found, expected)
    assert torch.equal(problem.published["as_published"], predicted == y)
    assert size < 8 or 0 < (predicted == y).sum() < 8, "a test in which all or none break would say little"


@pytest.mark.parametrize("norm", THREATS)
def test_every_setting_of_every_member_is_the_library_standard(ten, images, make_problem, norm):
    kind, threat = libraries.autoattack().AutoAttack, THREATS[norm]
    theirs = kind(ten, norm=NORM[norm], eps=threat.eps, seed=0, version="standard")
    ours = build_library(make_problem(ten, images(1), threat=threat), theirs.attacks_to_run, 10, AutoAttack("standard"))
    assert tuple(theirs.attacks_to_run) == MEMBERS["standard"]
    for member in ("apgd", "apgd_targeted", "fab", "square"):
        plain, given = (
            {key: value for key, value in vars(getattr(a, member)).items() if isinstance(value, int | float | str)}
            for a in (theirs, ours)
        )
        assert given.pop("device", None) in (None, torch.device("cpu"))
        plain.pop("device", None)
        assert given == plain, member


@pytest.mark.parametrize("norm", THREATS)
def test_rand_and_single_apgd_are_the_library_on_a_deterministic_view(ten, images, make_problem, norm):
    problem = make_problem(ten, images(8), threat=THREATS[norm])
    # The library averages 20 equal gradients where we take one: the same up to float32 rounding.
    expected, predicted = directly(ten, problem.x, problem.y, THREATS[norm], "rand")
    assert torch.allclose(AutoAttack("rand")(problem), expected, atol=1e-5)
    assert torch.equal(problem.published["as_published"], predicted == problem.y)

    apgd = libraries.autoattack().AutoAttack(ten, norm=NORM[norm], eps=THREATS[norm].eps, seed=0).apgd
    with torch.random.fork_rng(devices=[]):
        assert torch.equal(APGD()(problem), apgd.perturb(problem.x, problem.y))


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("purifier", [Purifier, Jitter])
def test_images_stay_in_the_ball_and_nothing_global_changes(ten, images, make_problem, norm, size, purifier):
    problem = make_problem(ten, images(size), purifier=purifier(), threat=THREATS[norm])
    clean, state = problem.x.clone(), torch.get_rng_state()
    tracer = sys.gettrace()
    sys.settrace(marker := lambda *_: None)
    try:
        found = SHORT(problem)
        kept = sys.gettrace()
    finally:
        sys.settrace(tracer)
    assert kept is marker
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(problem.x, clean)
    assert found.shape == clean.shape
    assert not found.requires_grad
    problem.threat.check(found, problem.x, problem.ids, "test")
    assert not torch.equal(found, clean)
    flags = problem.published["as_published"]
    assert flags.shape == (size,)
    assert flags.dtype == torch.bool


@pytest.mark.parametrize("purifier", [Purifier, Jitter])
def test_small_passes_change_rounding_only(ten, images, make_problem, purifier):
    attack = AutoAttack("rand", draws=3, n_iter=5)
    wide, narrow = (
        attack(make_problem(ten, images(8), purifier=purifier(), threat=THREATS["l2"], max_rows=rows))
        for rows in (512, 3)
    )
    assert torch.allclose(wide, narrow, atol=1e-5)


@pytest.mark.parametrize("randomized", [False, True])
def test_a_gradient_that_is_not_a_number_is_an_error(ten, images, make_problem, randomized):
    problem = make_problem(ten, images(3), ten(images(3)).argmax(1), Poison(randomized))
    with pytest.raises(FloatingPointError, match="sample 100"):
        AutoAttack("rand", draws=2, n_iter=3)(problem)


def test_a_view_without_gradient_leaves_finite_images_and_the_gradient_free_member(ten, images, make_problem):
    problem = make_problem(ten, images(8), purifier=GradientKiller(), threat=Threat("linf", 32 / 255))
    found = AutoAttack("standard", n_iter=5, n_queries=300)(problem)
    problem.threat.check(found, problem.x, problem.ids, "test")
    assert (ten(found).argmax(1) != problem.y).float().mean() > 0.5, "Square needs no gradient"


@pytest.mark.parametrize("view", [Full, Bpda])
@pytest.mark.parametrize(
    "attack, classes, words",
    [
        (
            AutoAttack("standard"),
            3,
            "attack.version=standard needs a classifier of at least 4 classes, and this one has 3",
        ),
        (AutoAttack("rand"), 2, "attack.version=rand needs a classifier of at least 3 classes, and this one has 2"),
        (APGD("dlr"), 2, "attack.loss=dlr needs a classifier of at least 3 classes, and this one has 2"),
    ],
)
def test_too_few_classes_are_refused(smooth, images, make_problem, attack, classes, words, view):
    problem = make_problem(smooth(classes=classes), images(2), purifier=Jitter(), view=view)
    with pytest.raises(ValueError, match=words) as caught:
        attack(problem)
    assert "use attack=apgd_ce" in str(caught.value)


@pytest.mark.parametrize(
    "attack, word, known",
    [(AutoAttack, "plus", "standard or rand"), (APGD, "margin", "cross_entropy, dlr or targeted_dlr")],
)
def test_unknown_choices_are_refused(attack, word, known):
    with pytest.raises(ValueError, match=f"={word} is not known: use {known}"):
        attack(word)


def test_few_classes_are_enough_for_cross_entropy(smooth, images, make_problem):
    problem = make_problem(smooth(classes=2), images(2), purifier=Jitter())
    problem.threat.check(APGD(draws=2, n_iter=3)(problem), problem.x, problem.ids, "test")


def test_a_real_autoattack_is_preferred(tmp_path, monkeypatch):
    (tmp_path / "autoattack.py").write_text("real = True")
    monkeypatch.delitem(sys.modules, "autoattack", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert libraries.autoattack().real
    monkeypatch.delitem(sys.modules, "autoattack")


def test_robustbench_imports_from_pypi_alone():
    module = libraries.robustbench()
    assert callable(module.load_model)
    assert sys.modules["autoattack"].AutoAttack is libraries.autoattack().AutoAttack
