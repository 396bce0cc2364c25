"""What a person reads who mistypes a choice or a key: one line, with what there is."""

import pytest
from cells import called


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
    done = called("run", *words)
    assert done.returncode != 0
    (line,) = done.stderr.strip().splitlines()
    assert told in line
    assert "guidance/" not in line, "a group of its own is no purifier"


@pytest.mark.parametrize("key", ["purifier.guidance.lambda=10", "purifer=coup", "purifier/sampler=ode"])
def test_an_unknown_key_is_named_and_nobody_is_told_to_append_it(key):
    """Hydra advises `+key`, which hands a part a word that it does not know."""
    done = called("run", "purifier=coup" if "guidance" in key else "purifier=likelihood_max", key)
    (line,) = done.stderr.strip().splitlines()
    assert f"{key.split('=')[0]} is no key or group here" in line
    assert "append" not in line


def test_an_appended_key_is_refused_before_a_record_is_begun(tmp_path):
    done = called("run", "purifier=coup", "+purifier.guidance.lambda=10", "n=1", f"outputs={tmp_path / 'out'}")
    (line,) = done.stderr.strip().splitlines()
    assert "purifier.guidance" in line
    assert "'lambda'" in line
    assert not (tmp_path / "out").exists()


def test_the_flag_of_a_sweep_may_stand_between_the_keys(tmp_path):
    done = called("run", "dry=true", "-m", "seed=0,1", f"outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dry check passed") == 2


@pytest.mark.parametrize(
    "words, told",
    [
        (["coup/1"], "lgap-bench: coup/1 is not a key of report"),
        (["table=coup/1", "dataset=digitz"], "lgap-bench: dataset=digitz is not known: use one of cifar10, "),
    ],
)
def test_what_a_report_cannot_read_is_repeated_as_it_came(tmp_path, words, told):
    done = called("report", *words, f"outputs={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith(told), done.stderr


def test_a_table_without_a_record_says_that_nothing_was_measured(tmp_path):
    done = called("report", "table=coup/1", f"outputs={tmp_path}")
    assert "73.05" in done.stdout
    assert f"no record of its experiments in {tmp_path / 'records'}" in done.stdout
