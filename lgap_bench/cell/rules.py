"""Which parts of a cell make sense together: attack, view, threat, purifier, captioner and training stages."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell, Config
from lgap_bench.cell.values import fraction, satisfies
from lgap_bench.runtime import libraries
from lgap_bench.runtime.libraries import NOT_AUTOATTACK


def check_compatibility(cell: Cell) -> None:
    """Raise ValueError for the first pair of parts that cannot work, in one line with the mend."""
    for each in _attacked_by(cell):
        _check_needs(each)
    for each in _attacked_by(cell, always=True):
        _check_combination(each)
    _check_view_needs(cell)
    _check_stages(cell)


def _attacked_by(cell: Cell, always: bool = False) -> list[Cell]:
    """The cell, and for an attack that is made of others the same cell with each of those as its attack.

    A member with a view of its own (`views`) is seen through that one. `always`: only the members that always run, which
    stand under the first key; the others run where they apply.
    """
    found, attack = [cell], cell.attack
    keys = about(attack, "made_of", ())
    for key in keys[:1] if always else keys:
        if not isinstance(attack.get(key), dict) or (key == keys[0] and not attack[key]):
            text = "null" if attack.get(key) is None else attack[key]
            raise ValueError(f"attack.{key}={text} names no attacks: add one, +attack@attack.{key}.<name>=apgd_ce")
        for name, member in attack[key].items():
            if not isinstance(member, dict) or "_target_" not in member:
                text = "null" if member is None else member
                raise ValueError(
                    f"attack.{key}.{name}={text} is no attack: choose one, +attack@attack.{key}.{name}=apgd_ce"
                )
            view = (attack.get("views") or {}).get(name, cell.names.view)
            titled = replace(cell.names, attack=f"{cell.names.attack} (its {name})", view=view)
            found.append(replace(cell, attack=member, names=titled))
    return found


def _check_combination(cell: Cell) -> None:
    view, attack, purifier = cell.names.view, cell.names.attack, cell.names.purifier
    if view in ("bpda", "caption") and purifier == "none":
        raise ValueError(
            f"attack={attack} sees view={view}, which needs a purifier, and purifier=none: use attack=pgd, or choose a purifier"
        )
    viewless = attack == "none" or about(cell.attack, "needs", {}).get("view") == "none"
    if view == "none" and not viewless:
        raise ValueError(f"view=none with attack={attack}: choose view=blind, bpda or full")
    weight = cell.attack.get("caption_weight", 0)
    if weight and not paths(purifier_captioner(cell), "weights"):
        raise ValueError(
            f"attack={attack} attacks the captioner, and purifier={purifier} has none that can be attacked: use purifier=lgap captioner={cell.names.dataset}/blip"
        )
    if view == "blind" and weight:
        raise ValueError(
            f"view=blind with attack={attack}: a blind attacker knows no captioner, use attack=pgd or view=bpda"
        )
    _check_caption_target(cell)
    target, loss = cell.attack.get("target"), cell.attack.get("loss", "cross_entropy")
    if target is not None and loss != "cross_entropy":
        raise ValueError(
            f"attack.target={target} with attack.loss={loss}: a targeted attack lowers the cross-entropy of its target, use attack.loss=cross_entropy"
        )
    _check_detector(cell)
    if view == "transfer" and not cell.view.get("classifier"):
        raise ValueError(
            f"view=transfer with dataset={cell.names.dataset}, which names no other classifier: choose the attacker's, +classifier@other=<name>"
        )
    _check_unbounded(cell)
    if view == "caption" and not weight:
        raise ValueError(f"view=caption with attack={attack}: its loss has no caption term, use attack=caption")


def _check_unbounded(cell: Cell) -> None:
    """Without a budget an attack that walks to the edge of its ball shows nothing: only a smallest perturbation does."""
    shape = about(cell.dataset, "shape")
    widest = (
        cell.threat["norm"] == "l2"
        and shape
        and fraction(cell.threat["eps"], "threat.eps") > 0.999 * math.prod(shape) ** 0.5
    )
    if widest and "step_size" in cell.attack:
        raise ValueError(
            f"threat={cell.names.threat} has no budget, and attack={cell.names.attack} walks to the edge of one: use attack=cw or deepfool, or another threat"
        )


def _check_detector(cell: Cell) -> None:
    """What looks for objects, and who attacks it."""
    attack, weight = cell.names.attack, cell.attack.get("detector_weight", 0)
    if weight and not paths(cell.purifier.get("detector"), "weights"):
        raise ValueError(
            f"attack={attack} attacks the detector, and purifier={cell.names.purifier} has none that can be attacked: use purifier=inpaint with detector={cell.names.dataset}/standard"
        )
    if weight and cell.names.view == "blind":
        raise ValueError(
            f"view=blind with attack={attack}: a blind attacker knows no detector, use attack=pgd or view=bpda"
        )
    if cell.names.view == "detector" and not weight:
        raise ValueError(f"view=detector with attack={attack}: its loss has no detector's term, use attack=detector")
    if cell.purifier.get("text") == "caption" and cell.purifier.get("captioner") is None:
        raise ValueError(
            f"purifier.text=caption with purifier={cell.names.purifier}, which has no captioner: use purifier=inpaint_caption, or purifier.text=labels"
        )


def _check_stages(cell: Cell) -> None:
    classifier, train = cell.classifier, cell.train
    purified = [name for name, recipe in cell.stages.items() if recipe["images"] == "purified"]
    if purified and cell.names.purifier == "none":
        raise ValueError(
            f"{purified[0]}={getattr(cell.names, purified[0])} trains on purified images, and purifier=none: choose a purifier, or {purified[0]}=clean or none"
        )
    if "train" in purified:
        raise ValueError("train.images=purified: train from scratch on clean images, then use finetune=lgap")
    bare = about(classifier, "untrained", False)  # an architecture, to be trained here
    if bare and train is None:
        raise ValueError(
            f"classifier={cell.names.classifier} has no weights and train=none: choose train={cell.names.dataset}/adp"
        )
    if train is not None and not bare:
        raise ValueError(
            f"train={cell.names.train} starts from scratch, and classifier={cell.names.classifier} has weights: use finetune=..., or classifier={cell.names.dataset}/scratch"
        )
    sizes = about(cell.dataset, "sizes", {})
    for name, recipe in cell.stages.items():
        if "train" not in sizes:
            raise ValueError(
                f"{name}={getattr(cell.names, name)}: dataset={cell.names.dataset} has no training images, use {name}=none"
            )
        if (recipe["n"] or 0) > sizes["train"]:
            raise ValueError(
                f"{name}.n={recipe['n']} is more than the {sizes['train']} training images of dataset={cell.names.dataset}: lower it or use null for all"
            )
        milestones = recipe["milestones"]
        if not isinstance(milestones, list) or not all(satisfies(epoch, "int [1, inf)") for epoch in milestones):
            raise ValueError(f"{name}.milestones={milestones} is no list of epochs: write [60, 120]")


def _check_caption_target(cell: Cell) -> None:
    target, dataset = cell.attack.get("caption_target"), cell.dataset
    if target and not cell.attack.get("caption_weight", 0):
        raise ValueError(
            f"attack.caption_target={target} with attack.caption_weight=0: no caption is attacked, set attack.caption_weight=1 or use attack=caption_nearest"
        )
    if target == "unrelated" and not dataset.get("unrelated"):
        raise ValueError(
            f"attack.caption_target=unrelated, and dataset={cell.names.dataset} has no such sentence: set dataset.unrelated"
        )


def _check_needs(cell: Cell) -> None:
    """What an attack declares to need: `needs: {norm: l2, view: blind | full, eps: "[1, 1]"}` below `_about_`, as in `limits`.

    The package that it may need is `require_package`'s.
    """
    attack, target = cell.names.attack, cell.attack["_target_"]
    if target.startswith(("torchattacks.", "lgap_bench.attack.torchattack.")) and target.endswith(".AutoAttack"):
        raise ValueError(f"attack._target_={target}: {NOT_AUTOATTACK}")
    eps = fraction(cell.threat["eps"], "threat.eps")
    facts = {"norm": cell.threat["norm"], "view": cell.names.view, "eps": eps}
    for key, limit in about(cell.attack, "needs", {}).items():
        if key != "package" and not satisfies(facts[key], limit):
            mend = "view" if key == "view" else "threat"
            raise ValueError(
                f"{key}={facts[key]} with attack={attack}: it needs {key}={' or '.join(limit.split(' | '))}, "
                f"choose another {mend} or another attack"
            )


def _check_view_needs(cell: Cell) -> None:
    """What a view declares to need of the purifier: `needs: {purifier: {sampler: {noise: "true"}, guidance: given}}`.

    In the words of `limits`, and `given`: there is one. The kind of prior (`space`) was looked at when the cell was resolved.
    """

    def look(needs: dict[str, Any], node: object, path: str) -> None:
        for key, limit in needs.items():
            value = node.get(key) if isinstance(node, dict) else None
            if isinstance(limit, dict):
                look(limit, value, f"{path}.{key}")
            elif value is None if limit == "given" else not satisfies(value, limit):
                wanted = f"{path}.{key}" + ("" if limit == "given" else f"={limit}")
                other = path.replace(".", "/") if isinstance(node, dict) and key not in node else "purifier"
                raise ValueError(
                    f"view={cell.names.view} with purifier={cell.names.purifier}: it needs {wanted}, choose another {other} or another view"
                )

    look(about(cell.view, "needs", {}).get("purifier", {}), cell.purifier, "purifier")


def require_package(cell: Cell) -> None:
    """Raise ValueError if the view, the attack or one that it is made of needs an optional package that is not installed.

    `needs: {package: torchattacks}` below `_about_`, or by the threat's norm, `{package: {l2: torchattacks}}`.
    """
    named = [(f"view={cell.names.view}", cell.view)]
    named += [(f"attack={each.names.attack}", each.attack) for each in _attacked_by(cell)]
    for name, part in named:
        package = about(part, "needs", {}).get("package")
        if isinstance(package, dict):
            name, package = f"{name} with norm={cell.threat['norm']}", package.get(cell.threat["norm"])
        if package:
            libraries.require(package, name)


def purifier_captioner(cell: Cell) -> Config | None:
    """The captioner's config inside the purifier's, if it has one."""
    return cell.purifier.get("captioner")


def paths(node: object, name: str) -> list[str]:
    """Every value of a key of that name in a config, sorted."""
    found: set[str] = set()
    if isinstance(node, dict):
        for key, child in node.items():
            found |= {child} if key == name and isinstance(child, str) else set(paths(child, name))
    for child in node if isinstance(node, list) else ():
        found |= set(paths(child, name))
    return sorted(found)
