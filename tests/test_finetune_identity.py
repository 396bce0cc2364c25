"""What a trained classifier is identified by, and which stages are refused."""

import json

import pytest

from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import at_split, identity, stage_identity


def test_identities_follow_what_the_weights_depend_on():
    def ids(*overrides):
        cell = resolved(["purifier=lgap", "finetune=lgap", *overrides])
        stages = [stage_identity(cell, name, "cpu") for name in ("finetune", "purified")]
        return [json.dumps(part, sort_keys=True) for part in (*stages, identity(cell, "cpu"))]

    base = ids()
    for override, changed in {
        "seed=3": (False, False, True),
        "attack=full": (False, False, True),
        "n=10": (False, False, True),
        "finetune.lr=1": (True, False, True),
        "finetune.seed=1": (True, False, True),
        "purifier.steps=10": (True, True, True),
        "captioner=empty": (True, True, True),
        "classifier=digits/adversarial": (True, False, True),
        "dataset.split=validation": (False, False, True),
        "dataset.caption='this is {label}'": (False, False, True),
        "dataset.synonyms={zero: [nought]}": (False, False, True),
        "finetune.purified=elsewhere": (False, False, False),
    }.items():
        assert tuple(a != b for a, b in zip(base, ids(override), strict=True)) == changed, override


def test_training_from_scratch_does_not_hang_on_what_it_does_not_use():
    def id_(*overrides):
        cell = resolved(["classifier=digits/scratch", "train=digits/adp", *overrides])
        return json.dumps(stage_identity(cell, "train", "cpu"), sort_keys=True)

    for same in (
        "dtype=bfloat16",
        "train.copies=3",
        "train.batch=9",
        "purifier=none",
        "dataset.split=validation",
        "captioner=oracle",
    ):
        assert id_(same) == id_(), same
    assert id_("train.lr=0.2") != id_()


def test_the_captions_oracle_reads_for_evaluation_do_not_retrain():
    def id_(split):
        cell = resolved(["captioner=oracle", "finetune=lgap", f"dataset.split={split}"])
        return json.dumps(stage_identity(cell, "finetune", "cpu"), sort_keys=True)

    assert id_("test") == id_("validation")


def test_a_caption_source_that_reads_labels_reads_those_of_the_split_it_is_used_on():
    cell = resolved(["captioner=oracle"])
    assert at_split(cell.purifier, "train")["captioner"]["dataset"]["split"] == "train"
    assert cell.purifier["captioner"]["dataset"]["split"] == "test"


REFUSED = [
    (["finetune=lgap", "purifier=none", "attack=pgd"], ["finetune=lgap", "purifier=none"]),
    (["finetune=lgap", "finetune.epochs=0"], ["finetune.epochs=0", "[1, inf)"]),
    (["finetune=lgap", "finetune.lr=0"], ["finetune.lr=0", "(0, 1000]"]),
    (["finetune=lgap", "finetune.n=9999"], ["finetune.n=9999", "3500"]),
    (["classifier=digits/scratch"], ["classifier=digits/scratch", "train=digits/adp"]),
    (["train=digits/adp"], ["train=digits/adp", "classifier=digits/standard", "classifier=digits/scratch"]),
    (["classifier=digits/scratch", "train=digits/adp", "train.images=purified"], ["train.images=purified"]),
    (["finetune=lgpa"], ["finetune/lgpa"]),
    (["finetune=lgap", "finetune.milestones=3"], ["finetune.milestones=3", "[60, 120]"]),
    (["finetune=lgap", "finetune.images=null"], ["finetune.images=null", "purified | clean"]),
    (["dataset=imagenet", "finetune=lgap"], ["finetune=lgap", "dataset=imagenet", "no training images"]),
    (["experiment=lgap/table1/nothing"], ["lgap/table1/nothing"]),
]


@pytest.mark.parametrize("overrides, parts", REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_bad_stages_are_one_line(torchless, tmp_path, overrides, parts):
    said = torchless.refusal("run", f"outputs={tmp_path}", *overrides)
    for part in parts:
        assert part in said
