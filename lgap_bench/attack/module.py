"""A view as the torch module that an attack library wants."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lgap_bench.attack.problem import Problem
from lgap_bench.defense import passes
from lgap_bench.noise import Noise
from lgap_bench.purifier.memory import recomputed


class ViewModule(nn.Module):
    """A view as the module that the library wants: images (rows, C, H, W) to mean logits (rows, classes) over `draws`.

    Args:
        problem: a full batch of calls is its samples in order. A deterministic view may be asked for some of them.
        draws: noise draws per call; a deterministic view takes one.
        handicap: added to the label's logit, so that only a margin above it counts as wrong.
        most: calls that it will get, where that is known: what is told of them says so.
    """

    def __init__(self, problem: Problem, draws: int, handicap: float = 0.0, most: int | None = None) -> None:
        super().__init__()
        self.problem, self.handicap, self.most, self.calls = problem, handicap, most, 0
        self.draws = draws if problem.view.randomized else 1
        self.start = problem.x.contiguous()
        self.last = problem.x  # the images of the latest call
        # The library takes its device from the first parameter; the defense itself stays out of its reach.
        self.place = nn.Parameter(torch.empty(0, device=problem.x.device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits with the view's gradient, checked on its way back."""
        noise = self._noise(len(x))
        logits = self.problem.journal.differentiable(
            "mean logits", x, (noise, self.handicap), lambda z: self._mean(z, noise)
        )
        self.last = x.detach()
        return logits

    def _mean(self, x: Tensor, noise: Noise) -> Tensor:
        tracked = x.requires_grad and torch.is_grad_enabled()
        pixels = x.clone()
        observed = self.problem.view.observe(pixels.detach(), noise.rows(0, len(x)))
        pieces = passes(self.draws * len(x), self.problem.view.max_rows)
        # Pieces are recomputed in the backward pass, so that the graph of one at a time is held.
        recompute = tracked and len(pieces) > 1
        parts = [self._piece(pixels, a, b, noise, observed, recompute) for a, b in pieces]
        logits = torch.cat(parts).view(self.draws, len(x), -1).mean(0)
        self._check(logits.detach(), "the logits")
        if self.handicap:
            logits = logits + self.handicap * nn.functional.one_hot(self.problem.y, logits.shape[1])
        if tracked:
            pixels.register_hook(lambda gradient: self._check(gradient, "the gradient"))
            # A view that grants no gradient at all grants zero, where the library would stop with an error.
            logits = logits + 0 * pixels.flatten(1).sum(1, keepdim=True)
        return logits

    def _noise(self, rows: int) -> Noise:
        self.calls += 1
        self.problem.tell("call", self.calls, self.most)
        if rows == len(self.problem.ids):
            return self.problem.stream("attack").draws(self.draws, 0, self.calls)
        assert not self.problem.view.randomized, "part of a batch, whose samples are not known, would share its noise"
        # Square's part of a batch, where nothing is drawn. The id -1 is no sample's, so that a look-up of it fails.
        return Noise((0,) * rows, (-1,) * rows, self.problem.seed)

    def _piece(
        self, x: Tensor, first: int, last: int, noise: Noise, observed: list[str] | None, recompute: bool
    ) -> Tensor:
        if recompute:
            return recomputed(self._piece, x, first, last, noise, observed, False)
        rows = torch.arange(first, last, device=x.device) % len(x)
        captions = None if observed is None else [observed[i] for i in rows.tolist()]
        return self.problem.view.logits(x[rows], noise.rows(first, last), captions)

    def _check(self, values: Tensor, what: str) -> None:
        finite = torch.isfinite(values).flatten(1).all(1)
        if not bool(finite.all()):
            known = len(values) == len(self.problem.ids)
            first = self.problem.ids[int((~finite).nonzero()[0]) if known else 0]
            raise FloatingPointError(f"{what} of sample {first}{'' if known else ' or its chunk'} are not finite")
