"""One cluster for all tests, and the records that each of them has to end with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import FOR_ACCOUNTING, Cluster, missing, why_not
from sweeps import SLOW, TABLE, undisturbed


@pytest.fixture(scope="session")
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    """`make_cluster(...)`: a cluster that is up until the tests end. Its folder is short: sockets have paths of 108."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    base, made = Path(tempfile.mkdtemp(prefix="slurm-")), []

    def make(**options: object) -> Cluster:
        folder = base / str(len(made))
        folder.mkdir()
        cluster = Cluster(folder, **options)
        made.append(cluster)
        cluster.up()
        return cluster

    yield make
    for cluster in made:
        cluster.down()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def _cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster(accounting=not missing(FOR_ACCOUNTING))


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """Two nodes of two cores, with nothing in the queue; whatever a test has broken is mended after it."""
    yield _cluster
    if "slurmctld" not in _cluster.daemons:
        _cluster.start_controller()
    for node in _cluster.nodes:
        if node not in _cluster.daemons:
            _cluster.start_node(node)
    _cluster.clear()


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[object]]]:
    """The table's records, measured in peace."""
    return undisturbed(tmp_path_factory.mktemp("table"), *TABLE)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[object]]]:
    """The records of the slow cells with seeds 0 and 1, measured in peace and without waiting."""
    return undisturbed(tmp_path_factory.mktemp("slow"), *SLOW, "seed=0,1")
