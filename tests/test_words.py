"""Commands that read their own words: what they refuse is one line, and a folder is named as `run` names it."""

import pytest
from cells import called

from lgap_bench.report.select import overridden


@pytest.mark.parametrize(
    "words, told",
    [
        (["status", "--wach"], "unrecognized arguments: --wach: see `lgap-bench status --help`"),
        (["status", "one", "two"], "unrecognized arguments: two: see `lgap-bench status --help`"),
        (["sync", "--mode=online"], "unrecognized arguments: --mode=online: see `lgap-bench sync --help`"),
        (["sync", "--offline", "nothing"], "record nothing is not finished in"),
        (["report", "--wide"], "unrecognized arguments: --wide: see `lgap-bench report --help`"),
        (["report", "--csv"], "argument --csv: expected one argument: see `lgap-bench report --help`"),
        (["demo", "--quick"], "unrecognized arguments: --quick: see `lgap-bench demo --help`"),
    ],
)
def test_what_a_command_refuses_is_one_line(words, told):
    done = called(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert done.stderr.startswith(f"lgap-bench: {told}")


def test_every_command_takes_the_folder_by_the_key_of_run(tmp_path):
    assert "has no sweeps" in called("status", f"outputs={tmp_path}/out").stderr
    pytest.importorskip("wandb")
    assert f"in {tmp_path}/out/records: nothing to send" in called("sync", f"outputs={tmp_path}/out").stdout


def test_an_empty_list_of_loggers_is_none(tmp_path):
    words = ["run", "logger=[]", "purifier=none", "attack=none", "n=4", "score_draws=1", f"outputs={tmp_path}"]
    done = called(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "natural" in done.stdout


def test_words_that_change_no_number_set_no_row_of_a_table_apart():
    place = ["outputs=there", "shard=3", "shards=8", "save_every=60", "logger=[console,wandb]", "offline=true"]
    words = [*place, "logger.wandb.project=mine", "+logger.wandb.host=true", "experiment=lgap/table1/lgap"]
    assert overridden([*words, "n=64", "dataset.split=validation"]) == "dataset.split=validation n=64"
