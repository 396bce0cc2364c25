"""Somebody's own defense: modules and functions that know nothing of this project are measured as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lgap_bench import evaluate, load_defense
from lgap_bench.dataset.digits import digits
from lgap_bench.noise import Stream
from lgap_bench.own import asked, wrapped
from lgap_bench.record import Record
from lgap_bench.runtime import generators

EPS = "48/255"
FAST = ("full attack.steps=4",)


@pytest.fixture(scope="module")
def net():
    return load_defense("dataset=digits", "purifier=none", "attack=none").classifier


@pytest.fixture(scope="module")
def data():
    held = digits()
    return held.images[:8], held.labels[:8]


def measured(defense, data, folder, **more):
    given = {"eps": EPS, "attackers": FAST, "progress": False, "outputs": folder, **more}
    return evaluate(defense, *data, **given)


class Noisy(nn.Module):
    """Noise from torch's global generator before a network."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x + 0.1 * torch.randn_like(x)).clamp(0, 1))


def test_three_lines_give_a_table_a_verdict_and_records(net, data, tmp_path):
    result = evaluate(net, *data, eps=EPS, outputs=tmp_path, progress=False)
    assert result.robust == 0
    assert result.natural == 100
    assert result.verdict == "sound"
    assert [row["attacker"] for row in result.rows][-1] == "each image's worst"
    assert all(record.complete for record in result.records)
    assert "verdict: sound" in str(result)


def test_the_same_numbers_as_the_same_cell_from_the_shell(net, data, tmp_path):
    from lgap_bench.cell.compose import composed
    from lgap_bench.measure import run_cell

    words = ["purifier=none", "attack=full", "attack.steps=4", "n=8", f"outputs={tmp_path}"]
    cfg = composed(words)
    cell = run_cell(cfg, cfg.hydra.runtime.choices)
    own = measured(net, data, tmp_path).records[0]
    # Sample ids differ (a place in the tensor against a place in the data set), so only what draws nothing is the same.
    assert own.samples()["clean_prediction"] == cell.samples()["clean_prediction"]
    assert own.samples()["clean_margin"] == cell.samples()["clean_margin"]


def test_the_module_is_afterwards_as_it_was(net, data, tmp_path):
    module = Noisy(net).train()
    module.net.requires_grad_(True)
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    measured(module, data, tmp_path)
    assert all(each.training for each in module.modules())
    assert all(each.requires_grad for each in module.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())
    module.eval()


def test_the_same_call_answers_from_its_record_and_another_network_does_not(net, data, tmp_path):
    first = measured(net, data, tmp_path).records[0]
    assert measured(net, data, tmp_path).records[0].folder == first.folder
    other = load_defense("dataset=digits", "classifier=digits/adversarial", "purifier=none", "attack=none").classifier
    assert measured(other, data, tmp_path).records[0].folder != first.folder
    images, labels = data
    assert measured(net, (images.flip(0), labels.flip(0)), tmp_path).records[0].folder != first.folder


def test_a_number_in_a_function_that_changes_its_answer_changes_its_record(net, data, tmp_path):
    def made(weight):
        return lambda x: net(x) * weight

    folders = {measured(made(weight), data, tmp_path).records[0].folder for weight in (1.0, 2.0)}
    assert len(folders) == 2


def test_another_gradient_under_the_same_answers_is_another_record(net, data):
    class Other(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, x):
            return net(x.detach() + self.scale * (x - x.detach()))

    found = [asked.ask("it", Other(scale), data[0], "") for scale in (1.0, 0.5)]
    assert found[0].sha256 != found[1].sha256


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_draw_depends_on_its_noise_key_alone(net, data, rows):
    part = wrapped.OwnClassifier(Noisy(net).eval(), randomized=True)
    noise = Stream(0, "score", tuple(range(rows))).draws(1)
    x = data[0][:rows]
    with torch.no_grad():
        whole = part(x, noise)
        torch.manual_seed(5)
        before = torch.get_rng_state()
        turned = part(x.flip(0), noise.take(list(reversed(range(rows))))).flip(0)
    assert torch.equal(whole, turned)
    assert torch.equal(before, torch.get_rng_state())
    if rows > 1:
        assert not torch.equal(part(x[:1], noise.rows(1, 2)), whole[:1])


def test_the_callers_process_may_still_download_afterwards(tmp_path):
    code = (
        "import os, torch\n"
        "from lgap_bench import evaluate\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))\n"
        "evaluate(net, torch.rand(2, 3, 2, 2), [0, 1], attackers=['full attack.steps=1'], progress=False)\n"
        "import huggingface_hub.constants as constants\n"
        "print(os.environ.get('HF_HUB_OFFLINE'), constants.HF_HUB_OFFLINE)"
    )
    held = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=held, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["None", "False"], done.stderr


def test_what_draws_is_known_to_draw_and_is_scored_on_several_draws(net, data, tmp_path):
    assert asked.ask("it", Noisy(net).eval(), data[0], "").randomized
    assert not asked.ask("it", net, data[0], "").randomized
    record = measured(Noisy(net), data, tmp_path, score_draws=5).records[0]
    assert len(record.samples()["clean_margin"][0]) == 5


def test_a_purifier_without_gradient_is_met_by_bpda_and_no_number_above_zero_is_sound(net, data, tmp_path):
    def rounded(x):
        with torch.no_grad():
            return (x * 4).round() / 4

    result = evaluate((rounded, net), *data, eps="8/255", outputs=tmp_path, progress=False)
    assert [row["view"] for row in result.rows][:3] == ["blind", "bpda", "bpda"]
    assert result.robust > 0
    assert result.verdict == "upper bound"
    assert any("has no gradient" in reason for reason in result.reasons)


def test_a_whole_without_gradient_is_searched(net, data, tmp_path):
    def whole(x):
        with torch.no_grad():
            return net(x)

    result = evaluate(whole, *data, eps=EPS, outputs=tmp_path, progress=False)
    assert [row["attack"] for row in result.rows] == ["square"]
    assert result.robust < 50


def test_a_network_behind_a_function_is_put_into_eval_mode_too(net, data, tmp_path):
    network = net.train()
    try:
        assert measured(lambda x: network(x), data, tmp_path).natural == 100
        assert network.training
    finally:
        net.eval()


def test_an_answer_with_logits_is_taken_for_them(net, data, tmp_path):
    class Output:
        def __init__(self, logits):
            self.logits = logits

    assert measured(lambda x: Output(net(x)), data, tmp_path).natural == 100


def test_a_notebook_shows_names_as_text(net, data, tmp_path):
    page = measured(net, data, tmp_path, name="<script>alert(1)</script>")._repr_html_()
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 1


def test_the_page_of_an_own_defense_says_how_it_was_measured_and_shows_classes_as_text(net, data, tmp_path):
    result = measured(net, data, tmp_path, classes=[f"<script>alert({i})</script>" for i in range(10)])
    text = result.report(tmp_path / "mine.html").read_text()
    assert text.count("<script>") == 1
    assert "✓ &lt;script&gt;alert(5)&lt;/script&gt;" in text
    assert text.count("Measured from Python") == len(result.records)
    assert "lgap-bench run " not in text.split('id="records"')[1]


def refused(defense, data, folder, **more):
    with pytest.raises(ValueError, match=r".") as raised:
        measured(defense, data, folder, **more)
    text = str(raised.value)
    assert "\n" not in text
    assert not list(Path(folder).rglob("summary.json"))
    return text


def test_bad_input_is_one_line_that_says_what_to_do(net, data, tmp_path):
    x, y = data
    for given, said in (
        ((x * 255, y), "divide bytes by 255"),
        (((x * 255).byte(), y), "divide bytes by 255"),
        ((x.permute(0, 2, 3, 1), y), "channels before height"),
        ((x, y[:5]), "5 labels for 8 images"),
        ((x, y.float()), "whole numbers"),
        ((x, y + 5), "is not in [0, 9]"),
        ((x * float("nan"), y), "not all in [0, 1]"),
    ):
        assert said in refused(net, given, tmp_path)
    assert "write 8/255" in refused(net, data, tmp_path, eps=8)
    assert "use linf or l2" in refused(net, data, tmp_path, norm="l1")
    assert "conf/attack has" in refused(net, data, tmp_path, attackers=["nosuch"])
    assert "defense=str" in refused("net", data, tmp_path)
    assert "is not in [0, 1]" in refused(net, data, tmp_path, classes=["a", "b"])


def test_a_defense_that_breaks_a_promise_is_refused_by_name(net, data, tmp_path):
    def boom(x):
        raise RuntimeError("boom")

    assert "classifier boom: its forward raised RuntimeError (boom)" in refused(boom, data, tmp_path)
    counter = iter(range(10**9))
    stateful = "answers differently under the same seeds"
    assert stateful in refused(lambda x: net((x + 1e-3 * next(counter)).clamp(0, 1)), data, tmp_path)
    assert "return the same shape" in refused((lambda x: x[..., :16, :16], net), data, tmp_path)
    assert "rescale or clamp" in refused((lambda x: 2 * x, net), data, tmp_path)
    assert "not finite" in refused(lambda x: net(x) * float("nan"), data, tmp_path)
    assert "another batch" in refused(lambda x: net(x - x.mean(0, keepdim=True)), data, tmp_path)


def test_the_generators_are_put_back_as_they_were():
    before = generators.state()
    with generators.seeded(3):
        torch.rand(2)
    assert generators.same(before, generators.state())


DEFENSE = """
from lgap_bench import load_defense

def build():
    return load_defense("dataset=digits", "purifier=none", "attack=none").classifier

def broken():
    raise RuntimeError("no weights here")
"""


def shell(folder, *words):
    (folder / "mine.py").write_text(DEFENSE)
    call = [sys.executable, "-m", "lgap_bench.cli", "eval", *words]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_module_is_measured_from_the_shell(tmp_path):
    done = shell(tmp_path, "mine:build", "dataset=digits", "n=8", "attack=full", "attack.steps=4", "eps=48/255")
    assert done.returncode == 0, done.stderr
    assert "build on 8 images, linf 48/255" in done.stdout
    assert len([Record(path) for path in (tmp_path / "outputs" / "records").iterdir()]) == 1


def test_ones_own_images_need_no_more_than_their_folder(data, tmp_path):
    from torchvision.utils import save_image

    for row, label in enumerate(data[1].tolist()):
        folder = tmp_path / "pictures" / f"{label}"
        folder.mkdir(parents=True, exist_ok=True)
        save_image(data[0][row], folder / f"{row}.png")
    names = "classes=[" + ",".join(f"'{number}'" for number in range(10)) + "]"
    for missing in set(range(10)) - set(data[1].tolist()):
        (tmp_path / "pictures" / f"{missing}").mkdir()
        save_image(data[0][0], tmp_path / "pictures" / f"{missing}" / "x.png")
    words = ("dataset=images", "path=pictures", f"dataset.{names}", "n=8", "attack=full", "attack.steps=1")
    done = shell(tmp_path, "mine:build", *words)
    assert done.returncode == 0, done.stderr
    assert "linf 8/255" in done.stdout


@pytest.mark.parametrize(
    "where, said",
    [
        ("mine", "write module:name"),
        ("mine:nothing", "mine has no nothing"),
        ("nomine:build", "cannot be imported"),
        ("mine:broken", "no weights here"),
    ],
)
def test_what_names_no_defense_is_said_in_one_line(tmp_path, where, said):
    done = shell(tmp_path, where, "dataset=digits")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
