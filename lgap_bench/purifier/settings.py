"""Checks of a diffusion purifier's settings. Without torch: what cannot work is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lgap_bench import weights as weight_files
from lgap_bench.cell import guided_by_trained
from lgap_bench.combination import paths
from lgap_bench.fraction import fraction
from lgap_bench.limit import within
from lgap_bench.purifier import schedule


def fits(cell: dict[str, Any]) -> None:
    """Raise ValueError for depth, steps, guidance or prior of `purifier` that cannot work, in one line with the mend."""
    purifier = cell["purifier"]
    prior = purifier.get("prior") or {}
    _steps(purifier, prior)
    needed = purifier.get("needs", {}).get("guidance")
    if isinstance(purifier.get("guidance"), dict):
        if needed == "none":
            raise ValueError(
                f"purifier={cell['purifier_name']} with a guidance: its records would bear the name of a purifier without, use purifier=coup (with its forward_noise=discrete for a guided DiffPure), likelihood_max_guided or lgap_coup"
            )
        _guidance(cell, purifier["guidance"])
    elif needed == "given":
        raise ValueError(
            f"purifier.guidance=null with purifier={cell['purifier_name']}: its records would bear that name, use a purifier that has none: coup_unguided, likelihood_max, diffpure or lgap"
        )
    if {"t_min", "t_max"} <= purifier.keys():
        _likelihood(cell)
    if purifier.get("needs", {}).get("space") == "pixel":
        _network(cell, prior)
        _betas(purifier, prior)
    if "sampler" in cell["view"]:
        _stand_in(cell, prior)
    _sides(cell, prior)


def _steps(purifier: dict[str, Any], prior: dict[str, Any]) -> None:
    """The sampler's own grid, made once to see whether it can be."""
    if "t_star" not in purifier:
        return
    t_star, sampler = purifier["t_star"], purifier.get("sampler") or {}
    if not within(t_star, "(0, 1]"):
        raise ValueError(schedule.bad_depth(t_star))
    train_steps = _config(prior, "scheduler/scheduler_config.json").get("num_train_timesteps", 1000)
    if purifier.get("forward_noise") == "discrete":
        schedule.start_index(t_star, train_steps)
    if "dt" in sampler:
        schedule.time_grid(t_star, sampler["dt"])
    elif "calls" in sampler:
        schedule.discrete_times(t_star, sampler["calls"], train_steps)


def _stand_in(cell: dict[str, Any], prior: dict[str, Any]) -> None:
    """The sampler of view=surrogate, in the place of the purifier's own."""
    purifier = {**cell["purifier"], "sampler": cell["view"]["sampler"]}
    try:
        _steps(purifier, prior)
        _network({**cell, "purifier": purifier}, prior)
        _betas(purifier, prior)
    except ValueError as error:
        text = str(error).replace("purifier.sampler", "view.sampler")
        raise ValueError(text.replace("purifier/sampler", "purifier/sampler@view.sampler")) from None


def _guidance(cell: dict[str, Any], guidance: dict[str, Any]) -> None:
    if "classifier" in guidance:
        classifier, standard = guidance["classifier"], f"{cell['dataset_name']}/standard"
        if classifier is None:
            raise ValueError(
                f"purifier.guidance.classifier=null: purifier={cell['purifier_name']} is guided by one, leave the key alone for classifier={cell['classifier_name']}, or use a purifier without guidance"
            )
        bare = not paths(classifier, "weights") and not paths(classifier, "file")
        if bare and not guided_by_trained(cell):
            raise ValueError(
                f"purifier.guidance.classifier has no weights: it is the one that train=... makes only with classifier={cell['classifier_name']} itself and finetune=none: use classifier={standard}, or a purifier without guidance"
            )
    if "eps" in guidance and not 0 < fraction(guidance["eps"], "purifier.guidance.eps") <= 1:
        raise ValueError(f"purifier.guidance.eps={guidance['eps']} is not in (0, 1]: pixels are in [0, 1], write 8/255")


def _likelihood(cell: dict[str, Any]) -> None:
    purifier, threat = cell["purifier"], cell["threat"]
    if purifier["t_min"] > purifier["t_max"]:
        raise ValueError(
            f"purifier.t_min={purifier['t_min']} is more than purifier.t_max={purifier['t_max']}: use 0 < t_min <= t_max <= 1, fractions of the schedule"
        )
    if "kind" in (purifier.get("guidance") or {}):
        raise ValueError(
            f"purifier={cell['purifier_name']} with a distance for guidance: it looks at images without noise, where that has no strength: use purifier.eps to stay near the input, or another guidance"
        )
    if purifier["eps"] is None:
        return
    radius = fraction(purifier["eps"], "purifier.eps")
    if threat["norm"] == "l2" and radius == fraction(threat["eps"], "threat.eps"):
        raise ValueError(
            f"purifier.eps={purifier['eps']} is the threat's l2 budget, and here it is a linf radius in pixels: write purifier.eps=8/255, or null for no ball"
        )
    if not 0 < radius < 1:
        raise ValueError(
            f"purifier.eps={purifier['eps']} is not in (0, 1): pixels are in [0, 1], write 8/255, or null for no ball"
        )


def _network(cell: dict[str, Any], prior: dict[str, Any]) -> None:
    """The prior's network against the data set's images and the sampler, as far as its config.json tells."""
    network, shape = _config(prior, "unet/config.json"), cell["dataset"].get("shape")
    if network.get("_class_name") == "DDPMpp":  # ours, for Score SDE's: its config has other words
        network = {**network, "in_channels": 3, "out_channels": 3, "sample_size": network.get("image_size")}
    channels, outputs, side = (network.get(key) for key in ("in_channels", "out_channels", "sample_size"))
    mend = f"use prior={cell['dataset_name']}/pixel"
    if shape is not None and side is not None:
        sides, size = (list(side) if isinstance(side, list) else [side, side]), prior.get("size")
        if sides != ([size, size] if size else list(shape[1:])):
            has = f"prior.size={size}" if size else f"dataset={cell['dataset_name']} has {shape[1]} x {shape[2]}"
            raise ValueError(
                f"prior.weights={prior['weights']} is for images of {sides[0]} x {sides[1]}, and {has}: {mend}"
            )
    if shape is not None and channels is not None and channels != shape[0]:
        raise ValueError(
            f"prior.weights={prior['weights']} is for {channels} channels, and dataset={cell['dataset_name']} has {shape[0]}: {mend}"
        )
    if channels is None or outputs is None:
        return
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"prior.weights={prior['weights']} has {outputs} output channels for {channels}: noise alone or noise and variance, {channels} or {2 * channels}, are known: {mend}"
        )
    schedule.variance_fits((cell["purifier"].get("sampler") or {}).get("variance"), outputs == 2 * channels)


def _sides(cell: dict[str, Any], prior: dict[str, Any]) -> None:
    """Sizes that images would be stretched to unasked, or at which the attack could not compare them with the input."""
    purifier, blocks = cell["purifier"], _config(prior, "vae/config.json").get("block_out_channels")
    side, given = purifier.get("resize_in"), purifier.get("resize_out")
    factor = 2 ** (len(blocks) - 1) if blocks else 1
    if side and side % factor:
        raise ValueError(
            f"purifier.resize_in={side} is no multiple of {factor}, by which the autoencoder of prior.weights={prior['weights']} shrinks images: use {side - side % factor or factor}"
        )
    shape = cell["dataset"].get("shape")
    if cell["view_name"] == "bpda" and given and shape is not None and [given, given] != list(shape[1:]):
        raise ValueError(
            f"purifier.resize_out={given} with view=bpda: its gradient is the classifier's, whose images have to be of the input's size ({shape[1]} x {shape[2]}): use purifier.resize_out=null or view=full"
        )


def _betas(purifier: dict[str, Any], prior: dict[str, Any]) -> None:
    """Continuous samplers take the VP-SDE's signal levels: a model trained on others would be called at wrong ones."""
    scheduler = _config(prior, "scheduler/scheduler_config.json")
    continuous = "dt" in (purifier.get("sampler") or {}) or purifier.get("forward_noise") == "continuous"
    if not {"beta_schedule", "beta_start", "beta_end", "num_train_timesteps"} <= scheduler.keys():
        return
    kind, low, high, steps = (scheduler[k] for k in ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps"))
    rates = (schedule.BETA_MIN, schedule.BETA_MAX)
    same = all(abs(beta * steps / rate - 1) < 1e-6 for beta, rate in zip((low, high), rates, strict=True))
    if (continuous or "t_min" in purifier) and not (kind == "linear" and same):
        raise ValueError(
            f"prior.weights={prior['weights']}: its betas ({kind}, {low} to {high} in {steps} steps) are not the VP-SDE's (linear, 0.0001 to 0.02 in 1000 steps), which continuous samplers go by: use purifier/sampler=ddpm or ddim with forward_noise=discrete"
        )


def _config(prior: dict[str, Any], part: str) -> dict[str, Any]:
    """A config of a model folder; empty where there is none, which is said when the weights are looked for."""
    weights = prior.get("weights")
    if not isinstance(weights, str):
        return {}
    embedded = weights.startswith(weight_files.EMBEDDED)
    folder = weight_files.ZOO / weights.removeprefix(weight_files.EMBEDDED) if embedded else Path(weights).expanduser()
    if not (folder / part).is_file():
        return {}
    try:
        config = json.loads((folder / part).read_text())
        return {str(key): value for key, value in config.items()}
    except (ValueError, AttributeError):
        raise ValueError(f"prior.weights={weights}: {part} is no JSON config: copy or download it again") from None
