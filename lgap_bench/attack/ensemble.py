"""Several attacks as one: the worst image of each sample, chosen on `select` draws that none of them has seen.

No single attack on an exact gradient is the strongest on every purifier. Some fall to PGD's small steps, others to the large
steps of Auto-PGD, some only when the guidance is left out of the gradient (docs/coup_finding.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lgap_bench.attack.detached import Detached
from lgap_bench.attack.problem import Attack, Problem
from lgap_bench.attack.select import WorstCase, confirmed_wrong
from lgap_bench.attack.view import Full, View


@dataclass(frozen=True)
class Ensemble:
    """Run one member after another, each on the samples that no earlier one is confirmed to have broken.

    A deterministic view confirms a sample at its first wrong image. Every member meets the noise that it would meet alone,
    but for random starts that a library draws by the place in the batch. Images are compared on draws of the ensemble's own.

    Args:
        members: name -> attack, in this order; cheap and strong ones first save the most.
        hidden: name -> attack, run after the members with the guidance left out of the gradient (view `detached`). Used only
            under the view `full`, and only if the purifier's guidance has a part in its gradient.
        select_draws: fresh draws on which the members' images are compared under a randomized view.
        confirm_draws: under a randomized view a sample is spared further members when all of these fresh draws are
            wrong; 0: it meets every member.

    Writes `found_by_<member>` to `problem.published`, (B,): whose image was the worst.
    """

    members: Mapping[str, Attack]
    hidden: Mapping[str, Attack] = field(default_factory=dict)
    select_draws: int = 10
    confirm_draws: int = 32

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("attack.members is empty: name at least one attack")
        twice = sorted(set(self.members) & set(self.hidden))
        if twice:
            raise ValueError(f"attack.members and attack.hidden both have {twice[0]}: give one of them another name")

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        randomized = problem.view.randomized
        # A deterministic view answers every draw alike.
        select, confirm = (self.select_draws, self.confirm_draws) if randomized else (1, 1)
        worst = WorstCase(problem, problem.stream("select").draws(select, 0, -4))
        finder = torch.full_like(problem.y, -1)
        left, names = list(range(len(problem.x))), [*self.members, *self.hidden]
        for name, attack, view in self._runs(problem.view):
            found = attack(replace(problem.take(left), view=view))
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

    def _runs(self, view: View) -> Iterator[tuple[str, Attack, View]]:
        """(name, attack, the view that it meets), in order."""
        for name, attack in self.members.items():
            yield name, attack, view
        if self.hidden and isinstance(view, Full) and view.defense.purifier.guidance_in_gradient:
            without = Detached(view.defense, view.max_rows)
            for name, attack in self.hidden.items():
                yield name, attack, without
