"""Several attacks as one: the worst image of each sample, chosen on `select` draws that none of them has seen.

No single attack is the strongest on every purifier. Some fall to PGD's small steps, others to the large steps of Auto-PGD,
some only when the guidance is left out of the gradient (docs/coup_finding.md), when the captioner is attacked too, or, where
the gradient is masked, to an attacker who ignores the purifier or searches without a gradient (docs/trust.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lgap_bench.attack.detached import Detached
from lgap_bench.attack.problem import Attack, Problem, estimate
from lgap_bench.attack.select import WorstCase, confirmed_wrong
from lgap_bench.attack.view import Blind, Bpda, Full, Query, View

OUTSIDE = {"blind": Blind, "bpda": Bpda, "query": Query}  # views of an attacker who has no exact gradient
ASKED = 8  # images on which the gradient's noise is measured
CLEAR = 0.5  # cosine of two independent means of the gradient above which the draws are enough


@dataclass(frozen=True)
class Ensemble:
    """Run one member after another, each on the samples that no earlier one is confirmed to have broken.

    A deterministic view confirms a sample at its first wrong image. Every member meets the noise that it would meet alone,
    but for random starts that a library draws by the place in the batch. Images are compared on draws of the ensemble's own.

    Args:
        members: name -> attack, in this order; cheap and strong ones first save the most.
        hidden: name -> attack, run after the members with the guidance left out of the gradient (view `detached`). Used only
            under the view `full`, and only if the purifier's guidance has a part in its gradient.
        captioned: name -> attack on the captioner too; used only where the purifier has one that can be attacked.
        outside: name -> attack that meets the defense through its own view, see `views`; used only under the view `full`,
            whose attacker knows all that these know.
        views: member of `outside` -> `blind`, `bpda` or `query`.
        noisy_draws: EOT draws per gradient of members that average, where two means over their own number of draws point
            elsewhere (cosine below 0.5 on the first images): that is where the defense's own noise is large.
        select_draws: fresh draws on which the members' images are compared under a randomized view.
        confirm_draws: under a randomized view a sample is spared further members when all of these fresh draws are
            wrong; 0: it meets every member.

    Writes `found_by_<member>` to `problem.published`, (B,): whose image was the worst.
    """

    members: Mapping[str, Attack]
    hidden: Mapping[str, Attack] = field(default_factory=dict)
    captioned: Mapping[str, Attack] = field(default_factory=dict)
    outside: Mapping[str, Attack] = field(default_factory=dict)
    views: Mapping[str, str] = field(default_factory=dict)
    noisy_draws: int = 1
    select_draws: int = 10
    confirm_draws: int = 32

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("attack.members is empty: name at least one attack")
        names = [*self.members, *self.hidden, *self.captioned, *self.outside]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"attack: two members are called {twice[0]}: give one of them another name")
        for name in self.outside:
            if self.views.get(name) not in OUTSIDE:
                raise ValueError(
                    f"attack.views.{name}={self.views.get(name)} is not known: use one of {', '.join(OUTSIDE)}"
                )

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        randomized = problem.view.randomized
        # A deterministic view answers every draw alike.
        select, confirm = (self.select_draws, self.confirm_draws) if randomized else (1, 1)
        worst = WorstCase(problem, problem.stream("select").draws(select, 0, -4))
        finder = torch.full_like(problem.y, -1)
        left, names = list(range(len(problem.x))), [*self.outside, *self.members, *self.hidden, *self.captioned]
        for number, (name, attack, view) in enumerate(self._runs(problem)):
            problem.tell(f"member {name}", number + 1, len(names))
            found = attack(replace(problem.take(left).telling(name), view=view))
            finder[worst.offer(found, left)] = names.index(name)
            wrong = worst.always_wrong.tolist()
            due = [row for row in left if wrong[row]]
            # Members number their restarts from 0: negative ones keep these draws apart from those they choose on.
            confirmed = set(confirmed_wrong(problem, worst.x, due, confirm, -1 - names.index(name), 0))
            left = [row for row in left if row not in confirmed]
            if not left:
                break
        problem.published.update({f"found_by_{name}": finder == number for number, name in enumerate(names)})
        return worst.x

    def _runs(self, problem: Problem) -> Iterator[tuple[str, Attack, View]]:
        """(name, attack, the view that it meets), in order: cheap ones first, the search last."""
        view = problem.view
        exact, purifier = type(view) is Full, view.defense.purifier
        outside = {name: OUTSIDE[self.views[name]] for name in self.outside if exact}
        for name, kind in outside.items():
            if kind is not Query:
                yield name, self.outside[name], kind(view.defense, view.max_rows)
        draws = self._draws(problem)
        for name, attack in self.members.items():
            yield name, _averaging(attack, draws), view
        if self.hidden and exact and purifier.guidance_in_gradient:
            without = Detached(view.defense, view.max_rows)
            for name, attack in self.hidden.items():
                yield name, _averaging(attack, draws), without
        if exact and hasattr(purifier.captioner, "loss"):
            for name, attack in self.captioned.items():
                yield name, _averaging(attack, draws), view
        for name, kind in outside.items():
            if kind is Query:
                yield name, self.outside[name], kind(view.defense, view.max_rows)

    def _draws(self, problem: Problem) -> int:
        """`noisy_draws` where the members' own number of draws leaves the gradient's direction to chance, else 1."""
        own = [draws for attack in self.members.values() if (draws := getattr(attack, "draws", 1)) > 1]
        few = problem.take(range(min(ASKED, len(problem.x))))
        if not problem.view.randomized or not problem.view.differentiable or not own or self.noisy_draws <= max(own):
            return 1
        draws = [few.stream("attack").draws(max(own), -1, -6 - half) for half in (0, 1)]
        first, second = (estimate(few, few.x, noise, few.task.loss).gradient.flatten(1) for noise in draws)
        return self.noisy_draws if float(F.cosine_similarity(first, second).median()) < CLEAR else 1


def _averaging(attack: Attack, draws: int) -> Attack:
    """The attack with at least so many EOT draws, if it averages over draws at all."""
    own = getattr(attack, "draws", 1)
    return replace(attack, draws=draws) if 1 < own < draws else attack  # type: ignore[type-var]
