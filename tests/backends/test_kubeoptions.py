from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from pytest_madengine.backends.kubeoptions import Options, read
from pytest_madengine.errors import FaultsError
from pytest_madengine.jobs.job import Mount
from tests.backends.kubejobs import JOB

NOTHING = Options((), {}, (), "")


def options(text: str) -> Options:
    return read(replace(JOB, options=tuple(shlex.split(text))))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", NOTHING),
        ("--rm -it --ipc=host --network host --ulimit memlock=-1 --device /dev/kfd --gpus all", NOTHING),
        (
            "-v /a:/b --volume=/c:/d:ro,z -v /e",
            replace(NOTHING, mounts=(Mount("/a", "/b"), Mount("/c", "/d", read_only=True), Mount("/e", "/e"))),
        ),
        ("-e A=1 --env 'B=it is = fast' -e C", replace(NOTHING, env={"A": "1", "B": "it is = fast"})),
        ("--cap-add=CAP_SYS_PTRACE --cap-add ipc_lock", replace(NOTHING, capabilities=("IPC_LOCK", "SYS_PTRACE"))),
        ("--shm-size 64g", replace(NOTHING, shm_size="64Gi")),
        ("--shm-size=16GB", replace(NOTHING, shm_size="16Gi")),
        ("--shm-size=1024", replace(NOTHING, shm_size="1024")),
    ],
)
def test_options_of_docker_become_what_a_pod_has(text: str, found: Options) -> None:
    assert options(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "--privileged --memory=1g",
            "llama3-8b: additional_docker_run_options: a pod has no --privileged; valid: -v, -e, --shm-size, "
            "--cap-add; or what they stand for in k8s.pod_spec",
        ),
        (
            "--shm-size=much",
            "llama3-8b: additional_docker_run_options: --shm-size=much; valid: a size of docker, such as 64g",
        ),
        ("-v", "llama3-8b: additional_docker_run_options: argument -v/--volume: expected one argument; valid: -v, "),
    ],
)
def test_an_option_that_no_pod_could_heed_is_refused(text: str, words: str) -> None:
    with pytest.raises(FaultsError) as caught:
        options(text)
    assert str(caught.value).startswith(words)
