"""Checks of a diffusion purifier's settings. Without torch: what cannot work is refused before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell, Config
from lgap_bench.cell.rules import paths
from lgap_bench.cell.values import fraction, satisfies
from lgap_bench.prior import schedule
from lgap_bench.runtime import weights as weight_files


def check_diffusion(cell: Cell) -> None:
    """Raise ValueError for depth, steps, guidance or prior of `purifier` that cannot work, in one line with the mend."""
    purifier = cell.purifier
    prior = purifier.get("prior") or {}
    _check_steps(purifier, prior)
    needed = about(purifier, "needs", {}).get("guidance")
    if isinstance(purifier.get("guidance"), dict):
        if needed == "none":
            raise ValueError(
                f"purifier={cell.names.purifier} with a guidance: its records would bear the name of a purifier without, use purifier=coup (with its forward_noise=discrete for a guided DiffPure), likelihood_max_guided or lgap_coup"
            )
        _check_guidance(cell, purifier["guidance"])
    elif needed == "given":
        raise ValueError(
            f"purifier.guidance=null with purifier={cell.names.purifier}: its records would bear that name, use a purifier that has none: coup_unguided, likelihood_max, diffpure or lgap"
        )
    if {"t_min", "t_max"} <= purifier.keys():
        _check_likelihood(cell)
    if about(purifier, "needs", {}).get("space") == "pixel":
        _check_network(cell, prior)
        _check_betas(purifier, prior)
    if "sampler" in cell.view:
        _check_stand_in(cell, prior)
    _check_sides(cell, prior)


def _check_steps(purifier: Config, prior: Config) -> None:
    """The sampler's own grid, made once to see whether it can be."""
    if "t_star" not in purifier:
        return
    t_star, sampler = purifier["t_star"], purifier.get("sampler") or {}
    if not satisfies(t_star, "(0, 1]"):
        raise ValueError(schedule.bad_depth(t_star))
    train_steps = _config(prior, "scheduler/scheduler_config.json").get("num_train_timesteps", 1000)
    if purifier.get("forward_noise") == "discrete":
        schedule.start_index(t_star, train_steps)
    if "dt" in sampler:
        schedule.time_grid(t_star, sampler["dt"])
    elif "calls" in sampler:
        schedule.discrete_times(t_star, sampler["calls"], train_steps)


def _check_stand_in(cell: Cell, prior: Config) -> None:
    """The sampler of view=surrogate, in the place of the purifier's own."""
    purifier = {**cell.purifier, "sampler": cell.view["sampler"]}
    try:
        _check_steps(purifier, prior)
        _check_network(replace(cell, purifier=purifier), prior)
        _check_betas(purifier, prior)
    except ValueError as error:
        text = str(error).replace("purifier.sampler", "view.sampler")
        raise ValueError(text.replace("purifier/sampler", "purifier/sampler@view.sampler")) from None


def _check_guidance(cell: Cell, guidance: Config) -> None:
    if "classifier" in guidance:
        classifier, standard = guidance["classifier"], f"{cell.names.dataset}/standard"
        if classifier is None:
            raise ValueError(
                f"purifier.guidance.classifier=null: purifier={cell.names.purifier} is guided by one, leave the key alone for classifier={cell.names.classifier}, or use a purifier without guidance"
            )
        # Not the cell's own, and nothing that it could have learned from: random weights would steer.
        other = classifier != cell.classifier and not paths(classifier, "weights") and not paths(classifier, "file")
        bare = other or about(classifier, "untrained", False)
        if bare and not guided_by_trained(cell):
            raise ValueError(
                f"purifier.guidance.classifier has no weights: it is the one that train=... makes only with classifier={cell.names.classifier} itself and finetune=none: use classifier={standard}, or a purifier without guidance"
            )
    if "eps" in guidance and not 0 < fraction(guidance["eps"], "purifier.guidance.eps") <= 1:
        raise ValueError(f"purifier.guidance.eps={guidance['eps']} is not in (0, 1]: pixels are in [0, 1], write 8/255")


def _check_likelihood(cell: Cell) -> None:
    purifier, threat = cell.purifier, cell.threat
    if purifier["t_min"] > purifier["t_max"]:
        raise ValueError(
            f"purifier.t_min={purifier['t_min']} is more than purifier.t_max={purifier['t_max']}: use 0 < t_min <= t_max <= 1, fractions of the schedule"
        )
    if "kind" in (purifier.get("guidance") or {}):
        raise ValueError(
            f"purifier={cell.names.purifier} with a distance for guidance: it looks at images without noise, where that has no strength: use purifier.eps to stay near the input, or another guidance"
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


def _check_network(cell: Cell, prior: Config) -> None:
    """The prior's network against the data set's images and the sampler, as far as its config.json tells."""
    network, shape = _config(prior, "unet/config.json"), about(cell.dataset, "shape")
    if network.get("_class_name") == "DDPMpp":  # ours, for Score SDE's: its config has other words
        network = {**network, "in_channels": 3, "out_channels": 3, "sample_size": network.get("image_size")}
    channels, outputs, side = (network.get(key) for key in ("in_channels", "out_channels", "sample_size"))
    mend = f"use prior={cell.names.dataset}/pixel"
    if shape is not None and side is not None and not about(prior, "any_size", False):
        sides, size = (list(side) if isinstance(side, list) else [side, side]), prior.get("size")
        if sides != ([size, size] if size else list(shape[1:])):
            has = f"prior.size={size}" if size else f"dataset={cell.names.dataset} has {shape[1]} x {shape[2]}"
            raise ValueError(
                f"prior.weights={prior['weights']} is for images of {sides[0]} x {sides[1]}, and {has}: {mend}"
            )
    if shape is not None and channels is not None and channels != shape[0]:
        raise ValueError(
            f"prior.weights={prior['weights']} is for {channels} channels, and dataset={cell.names.dataset} has {shape[0]}: {mend}"
        )
    if channels is None or outputs is None:
        return
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"prior.weights={prior['weights']} has {outputs} output channels for {channels}: noise alone or noise and variance, {channels} or {2 * channels}, are known: {mend}"
        )
    schedule.check_variance((cell.purifier.get("sampler") or {}).get("variance"), outputs == 2 * channels)


def _check_sides(cell: Cell, prior: Config) -> None:
    """Sizes that images would be stretched to unasked, or at which the attack could not compare them with the input."""
    purifier, blocks = cell.purifier, _config(prior, "vae/config.json").get("block_out_channels")
    side, given = purifier.get("resize_in"), purifier.get("resize_out")
    factor = 2 ** (len(blocks) - 1) if blocks else 1
    if side and side % factor:
        raise ValueError(
            f"purifier.resize_in={side} is no multiple of {factor}, by which the autoencoder of prior.weights={prior['weights']} shrinks images: use {side - side % factor or factor}"
        )
    shape = about(cell.dataset, "shape")
    if cell.names.view == "bpda" and given and shape is not None and [given, given] != list(shape[1:]):
        raise ValueError(
            f"purifier.resize_out={given} with view=bpda: its gradient is the classifier's, whose images have to be of the input's size ({shape[1]} x {shape[2]}): use purifier.resize_out=null or view=full"
        )


def _check_betas(purifier: Config, prior: Config) -> None:
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


def _config(prior: Config, part: str) -> Config:
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


def guided_by_trained(cell: Cell) -> bool:
    """Whether the purifier's guidance asks the classifier that the cell trains: then it is that one, and no second network.

    With a fine-tuning stage there is no such classifier: guidance asks the one before, purified images are needed for it.
    """
    guidance = cell.purifier.get("guidance") or {}
    asked = cell.train is not None and cell.finetune is None
    return asked and guidance.get("classifier") == cell.classifier
