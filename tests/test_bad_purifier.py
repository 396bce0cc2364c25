"""Settings of a diffusion purifier that cannot work are refused in one line, before torch or a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cells import called

from lgap_bench.cell.check import check
from lgap_bench.cell.compose import resolved

SCRATCH = ["classifier=digits/scratch", "train=digits/adp"]
UNGUIDED = ("coup_unguided", "diffpure", "lgap", "likelihood_max", "sd_img2img")
GUIDED = ("coup", "gdmp", "lgap_coup", "likelihood_max_guided")
DDPM = "purifier/sampler=ddpm"

BAD = [
    (["purifier=diffpure", "purifier.t_star=10"], ["purifier.t_star=10", "(0, 1]", "0.1 for 100 steps of 1000"]),
    (["purifier=coup", "purifier.t_star=0"], ["purifier.t_star=0", "(0, 1]"]),
    (["purifier=coup", "purifier.t_star=ten"], ["purifier.t_star=ten", "(0, 1]"]),
    (["purifier=diffpure", "purifier.t_star=0.0001"], ["purifier.t_star=0.0001", "0.001 or more"]),
    (["purifier=diffpure", "purifier.t_star=0.1", "purifier.sampler.dt=0.03"], ["purifier.sampler.dt=0.03", "does not divide", "0.0333333333333"]),
    (["purifier=diffpure", "purifier.t_star=0.1", "purifier.sampler.dt=0.2"], ["purifier.sampler.dt=0.2", "t_star=0.1"]),
    (["purifier=diffpure", "purifier.sampler.dt=0"], ["purifier.sampler.dt=0", "(0, 1]"]),
    (["purifier=diffpure", "purifier/sampler=ode", "purifier.t_star=0.1", "purifier.sampler.dt=0.03"], ["purifier.sampler.dt=0.03"]),
    (["purifier=gdmp", "purifier.t_star=0.1", "purifier.sampler.calls=101"], ["purifier.sampler.calls=101", "[1, 100]"]),
    (["purifier=diffpure", "purifier/sampler=ddim", "purifier.sampler.calls=0"], ["purifier.sampler.calls=0"]),
    (["purifier=gdmp", "purifier.sampler.variance=large"], ["purifier.sampler.variance=large", "fixed_small"]),
    (["purifier=gdmp", "purifier.sampler.variance=learned_range"], ["learned_range", "predicts no variance", "fixed_small"]),
    (["purifier=diffpure", "purifier.forward_noise=none"], ["purifier.forward_noise=none", "discrete"]),
    (["purifier=coup", "purifier.guidance.weight=-1"], ["purifier.guidance.weight=-1", "[0, inf)"]),
    (["purifier=coup", "purifier.guidance.temperature=0"], ["purifier.guidance.temperature=0"]),
    (["purifier=coup", "purifier.guidance.at=x_1"], ["purifier.guidance.at=x_1", "x_0"]),
    (["purifier=coup", "purifier.guidance.classifier=null"], ["purifier.guidance.classifier=null", "digits/standard"]),
    *((["purifier=" + name, "purifier.guidance=null"], [f"purifier={name}", "coup_unguided"]) for name in GUIDED),
    *(([f"purifier={name}", "+purifier/guidance=confidence"], [f"purifier={name} with a guidance", "use purifier=coup"]) for name in UNGUIDED),
    (["purifier=coup", *SCRATCH, "finetune=clean"], ["purifier.guidance.classifier", "digits/scratch", "classifier=digits/standard"]),
    (["purifier=lgap_coup", *SCRATCH, "finetune=lgap"], ["purifier.guidance.classifier", "digits/scratch"]),
    (["purifier=gdmp", "purifier.guidance.kind=l1"], ["purifier.guidance.kind=l1", "ssim | mse"]),
    (["purifier=gdmp", "purifier.guidance.eps=0"], ["purifier.guidance.eps=0", "8/255"]),
    (["purifier=gdmp", "purifier.guidance.eps=8"], ["purifier.guidance.eps=8", "(0, 1]", "8/255"]),
    (["purifier=gdmp", "purifier.guidance.eps=eight"], ["purifier.guidance.eps=eight", "8/255"]),
    (["purifier=gdmp", "purifier.rounds=0"], ["purifier.rounds=0"]),
    (["purifier=likelihood_max", "purifier.t_min=0.4"], ["purifier.t_min=0.4", "t_max=0.3"]),
    (["purifier=likelihood_max", "purifier.eps=eight"], ["purifier.eps=eight", "8/255"]),
    (["purifier=likelihood_max", "purifier.eps=0"], ["purifier.eps=0", "8/255"]),
    (["purifier=likelihood_max", "purifier.eps=8"], ["purifier.eps=8", "(0, 1)", "null for no ball"]),
    (["purifier=likelihood_max", "attack=salt_and_pepper"], ["purifier.eps=1 ", "(0, 1)", "null for no ball"]),
    (["purifier=lgap", "attack=bpda", "purifier.resize_out=16"], ["purifier.resize_out=16", "32 x 32", "view=full"]),
    (["purifier=lgap", "purifier.resize_in=30"], ["purifier.resize_in=30", "multiple of 4", "use 28"]),
    (["purifier=coup", "attack=pgd", "attack.step_size=2"], ["attack.step_size=2", "(0, 1]", "2/255"]),
    (["attack=pgd", "attack.target=random", "attack.loss=margin"], ["attack.target=random", "attack.loss=margin", "use attack.loss=cross_entropy"]),
    (["purifier=likelihood_max", "threat=digits/l2"], ["purifier.eps=3.0", "l2", "linf", "8/255"]),
    (["purifier=likelihood_max_guided", "purifier/guidance=distance"], ["likelihood_max_guided", "distance"]),
    (["purifier=diffpure", "prior=digits/latent"], ["pixel", "digits/latent", "prior=digits/pixel"]),
    (["purifier=lgap_coup", "prior=digits/pixel"], ["latent", "digits/pixel", "prior=digits/latent"]),
    (["purifier=coup", "attack=surrogate", "view.sampler.dt=0.03"], ["view.sampler.dt=0.03", "does not divide"]),
    (["purifier=coup", "attack=surrogate", "purifier/sampler@view.sampler=ddpm", "view.sampler.variance=learned_range"], ["view.sampler.variance=learned_range", "fixed_small"]),
    (["purifier=coup", "purifier.sampler=ode"], ["purifier.sampler=ode", "purifier/sampler=<name>"]),
    (["purifier=coup", "purifier.sampler=null"], ["purifier.sampler=null", "purifier/sampler=<name>"]),
    (["purifier=coup", "purifier.guidance=confidence"], ["purifier.guidance=confidence", "purifier/guidance=<name>"]),
    (["purifier=coup", "purifier.prior=null"], ["purifier.prior=null", ", prior=<name>"]),
    (["purifier=lgap", "purifier.captioner=oracle"], ["purifier.captioner=oracle", ", captioner=<name>"]),
    (["purifier=coup", "attack=surrogate", "view.sampler=ode"], ["view.sampler=ode", "purifier/sampler@view.sampler=<name>"]),
    (["purifier=coup", "attack=adjoint", "purifier/sampler=ddim"], ["purifier.sampler.noise=true", "another purifier/sampler"]),
    (["purifier=coup", "threat.norm=l1"], ["threat.norm=l1", "linf | l2"]),
    (["purifier=coup", "threat.norm=null"], ["threat.norm=null", "linf | l2"]),
]  # fmt: skip


def refusal(*overrides: str) -> str:
    """What the checks say of a cell, composed as the command composes it."""
    with pytest.raises(ValueError, match=r".") as caught:
        check(resolved(overrides))
    return str(caught.value)


@pytest.mark.parametrize("overrides, parts", BAD, ids=[" ".join(case[0]) for case in BAD])
def test_the_refusal_is_one_line_with_key_value_and_mend(overrides, parts):
    said = refusal(*overrides)
    assert "\n" not in said
    for part in parts:
        assert part in said, said


@pytest.fixture
def network(tmp_path: Path):
    """`network(in_channels=1)`: a model folder whose network says so, without weights, which are looked for later."""

    def make(**changes: Any) -> str:
        ours = changes.get("_class_name") == "DDPMpp"
        config = {**({} if ours else {"in_channels": 3, "out_channels": 3, "sample_size": 32}), **changes}
        steps = {"num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.2, "beta_schedule": "linear"}
        scheduler = {key: config.pop(key, value) for key, value in steps.items()}
        for part, content in (("unet/config", config), ("scheduler/scheduler_config", scheduler)):
            (tmp_path / part).parent.mkdir(exist_ok=True)
            (tmp_path / part).with_suffix(".json").write_text(json.dumps(content))
        return f"prior.weights={tmp_path}"

    return make


@pytest.mark.parametrize(
    "changes, overrides, parts",
    [
        (dict(sample_size=64), [], ["64 x 64", "dataset=digits", "32 x 32", "prior=digits/pixel"]),
        (dict(sample_size=[32, 64]), [], ["32 x 64", "dataset=digits"]),
        (dict(in_channels=1, out_channels=1), [], ["1 channels", "dataset=digits has 3"]),
        (dict(_class_name="DDPMpp", image_size=64), [], ["64 x 64", "32 x 32"]),
        (
            dict(_class_name="DDPMpp", image_size=32),
            [DDPM, "purifier.sampler.variance=learned_range"],
            ["predicts no variance"],
        ),
        (dict(sample_size=256), ["+prior.size=224"], ["256 x 256", "prior.size=224"]),
        (dict(out_channels=4), [], ["4 output channels", "3 or 6"]),
        (dict(out_channels=6), [DDPM, "purifier.sampler.calls=2"], ["variance=fixed_small", "learned_range"]),
        (dict(beta_end=0.02), [], ["linear, 0.001 to 0.02 in 100 steps", "VP-SDE", "purifier/sampler=ddpm"]),
        (dict(beta_schedule="scaled_linear"), [], ["scaled_linear", "VP-SDE"]),
        (dict(), [DDPM, "purifier.t_star=0.2", "purifier.sampler.calls=21"], ["calls=21", "[1, 20]"]),
        (dict(), ["purifier.t_star=0.001", "purifier.sampler.dt=0.001"], ["t_star=0.001", "100 steps", "0.01 or more"]),
    ],
    ids=str,
)
def test_a_prior_that_does_not_fit_is_refused_by_its_config_alone(changes, overrides, parts, network):
    said = refusal("purifier=diffpure", network(**changes), *overrides)
    assert "\n" not in said
    for part in parts:
        assert part in said, said


@pytest.mark.parametrize(
    "changes, overrides",
    [
        (dict(out_channels=6), []),
        (dict(out_channels=6), [DDPM, "purifier.sampler.variance=learned_range"]),
        (dict(sample_size=None), []),
        (dict(sample_size=64), ["+prior.size=64"]),
        (dict(_class_name="DDPMpp", image_size=32), []),
        (dict(beta_end=0.02), [DDPM, "purifier.sampler.calls=2"]),
        (dict(), [DDPM, "purifier.t_star=0.2", "purifier.sampler.calls=20"]),
    ],
    ids=str,
)
def test_a_prior_that_fits_passes(changes, overrides, network):
    check(resolved(["purifier=diffpure", network(**changes), *overrides]))


def test_a_config_that_is_cut_off_is_named(network, tmp_path):
    where = network()
    (tmp_path / "unet/config.json").write_text('{"in_channels": 3,')
    assert "unet/config.json is no JSON config" in refusal("purifier=diffpure", where)


@pytest.mark.parametrize("overrides, parts", [BAD[0], BAD[17]], ids=["depth", "guidance"])
def test_the_command_refuses_before_anything_heavy_is_imported(torchless, tmp_path, overrides, parts):
    said = torchless.refusal("run", f"outputs={tmp_path}/out", *overrides)
    for part in parts:
        assert part in said


def test_a_group_that_is_not_there_is_one_line_too(tmp_path):
    done = called("run", f"outputs={tmp_path}/out", "purifier=diffpure", "purifier/sampler=euler")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "euler" in done.stderr


@pytest.mark.parametrize(
    "dataset, variance", [("digits", "fixed_small"), ("cifar10", "fixed_large"), ("imagenet", "learned_range")]
)
def test_gdmp_takes_the_variance_of_its_release_or_of_the_network(dataset, variance):
    """OpenAI's ImageNet network predicts its variance: gdmp on it was refused as soon as its weights were there."""
    cell = resolved([f"dataset={dataset}", "purifier=gdmp"])
    check(cell)
    assert cell.purifier["sampler"]["variance"] == variance
