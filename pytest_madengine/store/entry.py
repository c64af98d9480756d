"""One metric of one row of one Result, as the store knows it."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """What is shown and compared; texts are as in perf.csv.

    Attributes:
        run: the id; of a perf.csv its path.
        recorded: ISO 8601 in UTC; '' in a perf.csv.
        item: the node id.
        card: the model's name.
        model: the row's.
        status: the row's.
        name: the metric's: `performance`, or a further column of the results file.
        value: None where nothing was measured.
        change: beside what was to be expected, relative; None where that was not told.
        judgement: of that; '' where nothing was expected.
        duration: seconds.
    """

    run: str
    recorded: str
    item: str
    card: str
    model: str
    status: str
    name: str
    value: float | None
    unit: str
    direction: str
    change: float | None
    judgement: str
    gpu_architecture: str
    n_gpus: str
    launcher: str
    args: str
    docker_file: str
    docker_image: str
    nnodes: str
    tags: str
    attempt: int
    duration: float
    failure: str
    reason: str
    image: str
    digest: str
    hosts: str
    log: str
