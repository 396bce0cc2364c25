"""Part bpda: BPDA-40 on LGAP, this project against plain_lgap.py on the same weights, settings and images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.attack.view import Full
from lgap_bench.cell.config import Cell
from lgap_bench.cell.values import fraction
from lgap_bench.noise import streams
from lgap_bench.runtime import weights as weight_files
from scripts.bench import plain_lgap
from scripts.bench.cells import built, problem
from scripts.bench.settings import Settings
from scripts.bench.timing import race

GOAL = 0.5


def measure(settings: Settings, *overrides: str) -> dict[str, Any]:
    """Time, network calls and robust accuracy of three contestants, one batch each.

    `own` is conf/attack/bpda.yaml: it keeps the worst iterate, checks it on fresh draws and lets broken samples leave.
    `own, last iterate` does what torchattacks does, step for step.
    """
    n, steps = settings.bpda_n, settings.bpda_steps
    parts, cell = built(settings, "purifier=lgap", "attack=bpda", f"attack.steps={steps}", *settings.cell, *overrides)
    task = problem(parts, cell, n)
    eps = fraction(cell.threat["eps"], "threat.eps")
    step = fraction(cell.attack["step_size"], "attack.step_size", eps)
    plain = plain_script(cell, parts.defense.classifier, settings.device)

    own_models, plain_models = _models(parts.defense), _plain_models(plain)

    def last() -> Tensor:
        return replace(parts.attack, keep="last")(task)

    torch.manual_seed(0)  # the plain script draws from the global generator
    ran = race(
        {
            "plain script": lambda: _counted(
                plain_models, lambda: plain_lgap.attack(plain, task.x, task.y, eps, step, steps)
            ),
            "own": lambda: _counted(own_models, lambda: parts.attack(task)),
            "own, last iterate": lambda: _counted(own_models, last),
        },
        settings.repetitions,
        settings.device,
        warm=False,  # what a first call sets up is nothing beside the attack, and the median leaves it out
    )
    figures = ran.figures(("own", "plain script"), ("own, last iterate", "plain script"))
    draws = cell.score_draws
    score = streams(cell.seed, task.ids)["score"].draws(draws)
    accuracy = {}
    for name, found in ran.results.items():
        logits = Full(parts.defense, cell.max_rows).query(found["images"], score)
        accuracy[name] = {
            "by our defense": 100 * float((logits.argmax(-1) == task.y).double().mean()),
            "by the plain script": plain_lgap.robust(plain, found["images"], task.y, draws),
        }
    return {
        "title": f"BPDA-{steps} on LGAP, linf {cell.threat['eps']}, {n} images",
        "goal": f"at most {GOAL} of the plain script's time",
        "met": {
            name: figures["ratios"][f"{name} / plain script"]["of_medians"] <= GOAL
            for name in ran.wall
            if name != "plain script"
        },
        **figures,
        "counts": {name: found["counts"] for name, found in ran.results.items()},
        "accuracy": accuracy,
        "timesteps": {
            "own": list(parts.defense.purifier.times),
            "plain script": plain.purify.pipe.scheduler.timesteps.tolist()[-len(parts.defense.purifier.times) :],
        },
        "largest_linf": {name: float((found["images"] - task.x).abs().max()) for name, found in ran.results.items()},
    }


def plain_script(cell: Cell, classifier: nn.Module, device: str) -> plain_lgap.Defended:
    """The plain script on the cell's weights and settings, with a classifier of its own in torch's own layout."""
    purifier, captioner = cell.purifier, cell.purifier["captioner"]
    setting = plain_lgap.Setting(
        **{key: captioner[key] for key in ("prompt", "beams", "min_length", "max_length")},
        **{key: purifier[key] for key in ("steps", "strength", "spacing", "guidance_scale", "negative_prompt")},
        resize_in=purifier["resize_in"],
    )
    latent, blip = (str(weight_files.locate(part["weights"])) for part in (purifier["prior"], captioner))
    own = copy.deepcopy(classifier).to(memory_format=torch.contiguous_format).requires_grad_(True)
    return plain_lgap.Defended(plain_lgap.Purify(latent, blip, setting, device), own)


def _models(defense: Any) -> dict[str, nn.Module]:
    prior, captioner = defense.purifier.prior, defense.purifier.captioner
    return {
        "unet": prior.unet,
        "vae_encoder": prior.vae.encoder,
        "vae_decoder": prior.vae.decoder,
        "captioner_vision": captioner.model.vision_model,
        "classifier": defense.classifier,
    }


def _plain_models(plain: plain_lgap.Defended) -> dict[str, nn.Module]:
    pipe, captioner = plain.purify.pipe, plain.purify.captioner
    return {
        "unet": pipe.unet,
        "vae_encoder": pipe.vae.encoder,
        "vae_decoder": pipe.vae.decoder,
        "captioner_vision": captioner.vision_model,
        "classifier": plain.classifier,
    }


def _counted(models: dict[str, nn.Module], run: Callable[[], Tensor]) -> dict[str, Any]:
    """The attacked images, and calls and rows of each model while they were made."""
    counts = {name: {"calls": 0, "rows": 0} for name in models}

    def hook(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["pixel_values"]
            counts[name]["calls"] += 1
            counts[name]["rows"] += len(x)

        return note

    handles = [model.register_forward_pre_hook(hook(name), with_kwargs=True) for name, model in models.items()]
    try:
        return {"images": run(), "counts": counts}
    finally:
        for handle in handles:
            handle.remove()
