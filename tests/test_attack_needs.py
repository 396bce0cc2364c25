"""What an attack needs is checked before torch is imported; and random noise, the attack that needs least."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.random_noise import RandomNoise
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.torchattack import Square
from lgap_bench.attack.view import Blind
from lgap_bench.cell.check import check
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import identity
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.task.loss import margin


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["attack=cw"], "norm=linf with attack=cw: it needs norm=l2"),
        (["attack=cw_torchattacks_c1"], "norm=linf with attack=cw_torchattacks_c1: it needs norm=l2"),
        (["attack=cw_torchattacks_c1_long"], "norm=linf with attack=cw_torchattacks_c1_long: it needs norm=l2"),
        (["attack=deepfool"], "norm=linf with attack=deepfool: it needs norm=l2"),
        (["attack=eotpgd", "threat=digits/l2"], "norm=l2 with attack=eotpgd: it needs norm=linf"),
        (["attack=cw", "threat=digits/l2", "view=query"], "view=query with attack=cw: it needs view=blind or bpda or"),
        (["attack=cw", "threat=digits/l2", "view=caption"], "view=caption with attack=cw: it needs view=blind or bpda"),
        (["attack=pgd", "view=query"], "view=query with attack=pgd"),
        (["attack=full", "view=query"], "view=query with attack=full"),
        (["attack=joint", "view=query"], "view=query with attack=joint"),
        (["attack=apgd_ce", "view=query"], "view=query with attack=apgd_ce"),
        (["attack=autoattack_rand", "view=query"], "view=query with attack=autoattack_rand"),
        (["attack=square", "view=bpda"], "view=bpda with attack=square: it needs view=query or blind"),
        (["attack=square", "view=full"], "view=full with attack=square"),
        (["attack=square", "view=caption"], "view=caption with attack=square"),
        (["attack=random", "view=full"], "view=full with attack=random"),
        (["attack=pgd", "attack._target_=torchattacks.AutoAttack"], "10 steps instead of 100.*autoattack_standard"),
        (["attack=square", "attack._target_=lgap_bench.attack.torchattack.AutoAttack"], "is not AutoAttack"),
        (
            ["attack=square", "+attack._about_.needs.colour=red"],
            "conf/attack/square.yaml: _about_.needs.colour is not known: use norm or view",
        ),
        (["attack=cw", "threat=digits/l2", "attack.kappa=-1"], "attack.kappa=-1 is not in"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        check(resolved(overrides))
    assert "\n" not in str(caught.value)


def test_the_checks_need_no_torch():
    code = "import sys, lgap_bench.cell.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_needs_are_no_part_of_what_is_built_or_of_the_identity():
    plain = resolved(["attack=square"])
    assert instantiate(plain.attack) == Square()
    bare = replace(plain, attack={key: value for key, value in plain.attack.items() if key != "_about_"})
    assert bare != plain
    assert identity(bare, "cpu") == identity(plain, "cpu")


def test_random_noise_is_the_weakest_attack_and_more_tries_are_worse(make_problem, smooth, images):
    model = smooth()
    harm = []
    for attack in (RandomNoise(), RandomNoise(tries=10), PGD(steps=10, step_size="eps/4", start="zero")):
        problem = make_problem(model, images(32), view=Blind, threat=Threat("linf", 8 / 255))
        harm.append(margin(model(attack(problem)), problem.y))
    assert (harm[0] <= harm[1] + 1e-6).all()
    assert not ((harm[1] > 0) & (harm[2] <= 0)).any()
    assert (harm[0] > 0).float().mean() < 0.5 * (harm[2] > 0).float().mean()


def test_an_attack_of_one_s_own_may_have_members_of_its_own_kind():
    """Only what `made_of` names is taken for attacks."""
    plain = resolved(["attack=pgd"])
    own = replace(plain, attack={**plain.attack, "members": [1, 2]})
    check(own)
    assert identity(own, "cpu") != identity(plain, "cpu")
