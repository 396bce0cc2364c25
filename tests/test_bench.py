"""The benchmark: every part runs, says what it promises, and compares contestants that do the same work."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scripts.bench import growth, memory, models, plain_lgap, run, true_size
from scripts.bench.bpda import plain_script
from scripts.bench.cells import built
from scripts.bench.pgd import Counted
from scripts.bench.settings import QUICK, ROOT, Settings
from scripts.bench.timing import race

OWN = ("own, last iterate", "own, first success")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """`--quick` on every part, in this process."""
    out = tmp_path_factory.mktemp("bench")
    run.main(["--quick", "--out", str(out), "--data", str(out / "missing")])
    return json.loads((out / "bench.json").read_text()), (out / "bench.md").read_text()


@pytest.mark.slow
def test_every_part_says_what_it_promises(report):
    found, text = report
    assert list(found["parts"]) == list(run.PARTS)
    assert {"cpu", "cores", "threads", "torch", "device"} <= found["machine"].keys()
    assert found["command"] == "python -m scripts.bench.run --quick"
    for name, part in found["parts"].items():
        assert {"title", "goal", "met"} <= part.keys(), name
        assert all(isinstance(met, bool) for met in part["met"].values()), name
        assert f"### {name}: " in text
    assert str(ROOT.parent) not in json.dumps(found) + text, "a committed figure would name somebody's folders"


@pytest.mark.slow
def test_the_library_and_our_pgd_make_the_same_passes(report):
    part = report[0]["parts"]["pgd"]
    for budget, eps in (("linf 8/255", 8 / 255), ("linf 1/255", 1 / 255)):
        found = part[budget]
        same = {"passes": QUICK.pgd_steps, "rows": QUICK.pgd_steps * QUICK.pgd_n}
        assert found["counts"]["torchattacks"] == found["counts"]["own, last iterate"] == same
        # One pass more at most: the last iterate is judged too.
        assert found["counts"]["own, first success"]["passes"] <= QUICK.pgd_steps + 1
        assert all(linf <= eps + 1e-6 for linf in found["largest_linf"].values())
        assert found["ratios"].keys() == {f"{name} / torchattacks" for name in OWN}
    assert part["title"].endswith("(random)")


@pytest.mark.slow
def test_the_plain_script_and_ours_call_the_same_networks(report):
    found = report[0]["parts"]["bpda"]
    plain, own, last = (found["counts"][name] for name in ("plain script", "own", "own, last iterate"))
    assert plain == last
    steps, n, calls = QUICK.bpda_steps, QUICK.bpda_n, len(found["timesteps"]["own"])
    assert plain["unet"] == {"calls": steps * calls, "rows": steps * calls * n}, "guidance is on in one of them"
    for model in ("vae_encoder", "vae_decoder", "captioner_vision", "classifier"):
        assert plain[model] == {"calls": steps, "rows": steps * n}
    assert own["unet"]["rows"] >= plain["unet"]["rows"], "select draws come on top"
    assert found["timesteps"]["own"] == found["timesteps"]["plain script"]
    assert all(linf <= 48 / 255 + 1e-6 for linf in found["largest_linf"].values())
    assert found["accuracy"].keys() == {"plain script", "own", "own, last iterate"}


def test_torchattacks_leaves_the_contestants_in_eval_mode(images):
    """It puts a module that says it is training back into training mode, and batch statistics would judge the images."""
    parts, cell = built(Settings(), "purifier=lgap", "attack=bpda")
    defended = plain_script(cell, parts.defense.classifier, "cpu")
    counted = Counted(copy.deepcopy(parts.defense.classifier))
    x, y = images(2, 32), torch.tensor([0, 1])
    for model in (defended, counted):
        plain_lgap.attack(model, x, y, eps=0.1, step=0.1, steps=1)
        assert not any(module.training for module in model.modules())


def test_the_plain_script_purifies_as_we_do():
    """The same captions; the same image where both are handed the same noise."""
    settings = Settings()
    parts, cell = built(settings, "purifier=lgap", "attack=bpda")
    plain = plain_script(cell, parts.defense.classifier, settings.device).purify
    x, purifier = parts.dataset.images[:3], parts.defense.purifier

    class Same:
        def normal(self, like, tag):
            return {"vae": drawn[0], "forward": drawn[1]}[tag]

    latents, generator = torch.Size((3, 4, 8, 8)), torch.Generator().manual_seed(5)
    drawn = [torch.randn(latents, generator=generator) for _ in range(2)]
    pipe, call = plain.pipe, type(plain.pipe).__call__

    class Seeded(type(pipe)):
        def __call__(self, **given):
            return call(self, **given, generator=torch.Generator().manual_seed(5))

    plain.pipe.__class__ = Seeded
    captions = plain.captions(x)
    assert captions == parts.defense.observe(x, None)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), purifier(x, Same(), captions), atol=2e-5, rtol=0)


@pytest.mark.slow
def test_recomputing_holds_less_memory(report):
    part = report[0]["parts"]["gradient"]
    for where in ("miniature", "larger"):
        peak = part[where]["peak_mib"]
        assert 0 < peak["forward"] < peak["exact gradient, recompute"] < peak["exact gradient"]
    assert part["larger"]["weights"].keys() == {"unet", "vae", "text_encoder", "blip"}


@pytest.mark.slow
def test_a_budget_of_memory_is_kept_and_changes_no_gradient(report):
    part = report[0]["parts"]["pixel"]
    alone, larger, whole = (
        part["peak_mib"][f"exact gradient{plan}"] for plan in (", one step at a time", ", 1.3 of that memory", "")
    )
    assert part["same_gradient"]
    assert part["met"]["within the budget"]
    assert 0 < part["peak_mib"]["forward"] < alone
    assert max(alone, larger) < whole / 2


@pytest.mark.slow
def test_shares_and_components_add_up(report):
    share, profile = (report[0]["parts"][name] for name in ("share", "profile"))
    assert 0 < share["outside_percent_of_loop"]["median"] < share["outside_percent"]["median"] < 100
    names = {row["name"]: row for row in profile["components"]}
    assert sum(row["percent"] for row in names.values()) == pytest.approx(100)
    for name in ("U-Net", "autoencoder, encode", "autoencoder, decode", "classifier"):
        assert names[f"{name}, backward"]["seconds"] > 0
    backward, forward = names["U-Net, backward"]["calls"], names["U-Net"]["calls"]
    # One chunk: the attack's steps, and the three gradients that contracts and verdict ask for.
    assert backward == 3 * (QUICK.profile_steps + 3) < forward
    assert {"captioner", "text encoder", "noise", "bookkeeping"} <= names.keys()


@pytest.mark.slow
def test_growth_compares_the_first_size_with_the_last(report):
    part = report[0]["parts"]["growth"]
    assert part["images"].keys() == {str(n) for n in QUICK.growth}
    assert part["met"].keys() == part["change_percent"].keys() == {"ms_per_image", "cpu_ms_per_image", "peak_mib"}


def test_true_size_runs_with_small_weights():
    """The path of --true-size, with the release's settings but for fewer steps and a smaller image."""
    settings = replace(Settings(), repetitions=1)
    few = ("purifier.steps=4", "purifier.strength=0.5", "purifier.spacing=leading", "purifier.guidance_scale=5")
    fast = ("attack.select_draws=1", "attack.confirm_draws=0")
    found = true_size.measure(settings, models.narrow(16), side=64, overrides=(*few, *fast), n=1, steps=2)
    counts = found["bpda"]["counts"]
    assert counts["plain script"] == counts["own, last iterate"]
    assert counts["plain script"]["unet"] == {"calls": 4, "rows": 8}, "two steps, two calls, two rows with guidance"
    assert found["gradient"]["network_calls"] == 2


def test_true_size_is_stable_diffusions():
    """The widths of Stable Diffusion v1 and BLIP base, without building them."""
    with torch.device("meta"):
        unet = models.unet(models.SD_V1)
    assert sum(weight.numel() for weight in unet.parameters()) == 859_520_964


def test_contestants_take_turns():
    order = []
    found = race({name: lambda name=name: order.append(name) for name in "AB"}, 3, "cpu")
    assert "".join(order) == "ABABABAB", "one unmeasured turn, then three"
    assert len(found.wall["A"]) == len(found.wall["B"]) == 3
    figures = found.figures(("A", "B"))
    pairs = [a / b for a, b in zip(found.wall["A"], found.wall["B"], strict=True)]
    assert figures["ratios"]["A / B"]["pairs"]["all"] == pairs


def test_peak_memory_of_a_call_is_that_of_its_tensors():
    def call():
        first = torch.ones(2**20)
        del first
        return torch.ones(2**20) + torch.ones(2**20)

    assert memory.of_call(call, "cpu") == pytest.approx(12, abs=0.1)  # three tensors of 4 MiB at once
    assert memory.of_process() > 50


def test_a_process_of_growth_is_told_every_setting():
    settings = replace(QUICK, data=Path("elsewhere"))
    assert growth.taken(growth.given(settings, 4)) == replace(settings, growth=(4,))


def test_a_part_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["--parts", "pgd,speed"])
    assert "speed is not a part" in capsys.readouterr().err


def test_the_plain_script_knows_nothing_of_this_project():
    assert "import lgap_bench" not in Path(plain_lgap.__file__).read_text()
    assert "from lgap_bench" not in Path(plain_lgap.__file__).read_text()
