"""What a person reads who mistypes a choice: one line, with what there is."""

import pytest
from cells import lgap_bench


@pytest.mark.parametrize(
    "words, told",
    [
        (["subset=coup512"], "conf/subset has digits/coup_512, cifar10/coup_512"),
        (["dataset=cifar10", "subset=cifar10/coup512"], "conf/subset/cifar10 has coup_512"),
        (["purifier=coupp"], "conf/purifier has coup, "),
        (["purifier=coup", "purifier/sampler=odde"], "conf/purifier/sampler has ode, "),
        (["captioner=blip"], "digits/blip"),
        (["threat=digits/linff"], "conf/threat/digits has linf, "),
        (["experiment=coup/tabel1/undefended"], "table1/undefended"),
    ],
)
def test_a_mistyped_choice_is_answered_with_the_nearest_ones(words, told):
    done = lgap_bench("run", *words)
    assert done.returncode != 0
    (line,) = done.stderr.strip().splitlines()
    assert told in line
    assert "guidance/" not in line, "a group of its own is no purifier"
