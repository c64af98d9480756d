from __future__ import annotations

from pathlib import Path

import pytest

from pytest_madengine.backends import kubeapi
from pytest_madengine.backends.kubeapi import Api, Place
from pytest_madengine.backends.kuberefusal import AwayError, DeniedError, StatusError
from pytest_madengine.errors import FaultsError
from tests.backends import servers
from tests.backends.kubeserver import CONFIG as OF_SERVER
from tests.backends.kubeserver import Answer, listing, serving

CONFIG = """\
apiVersion: v1
kind: Config
current-context: one
contexts: [{name: one, context: {cluster: c, user: u}}, {name: two, context: {cluster: d, user: u}}]
clusters: [{name: c, cluster: {server: "http://one"}}, {name: d, cluster: {server: "http://two"}}]
users: [{name: u, user: {}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_the_key_wins_over_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert Api(Place(str(config), "")).host == "http://one"
    assert Api(Place(str(config), "two")).host == "http://two"


def test_the_environment_may_name_several_files(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{config}")
    assert Api(Place("", "")).host == "http://one"


def test_else_the_file_in_the_home(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    config.rename(tmp_path / ".kube/config")
    assert Api(Place("", "two")).host == "http://two"


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(
        FaultsError, match=r"^k8s\.kubeconfig: /nowhere: there is no such file; valid: a file of kubectl's"
    ):
        Api(Place("", ""))


def test_a_context_that_is_not_there(config: Path) -> None:
    with pytest.raises(FaultsError) as refused:
        Api(Place(str(config), "tow"))
    assert str(refused.value) == f"k8s.context: tow; valid: one of {config}: one, two; did you mean 'two'?"


@pytest.mark.parametrize(
    "content", ["", "junk", "[1]", "kind: Config\ncurrent-context: x\n", "a: [", CONFIG.replace("{}", "7")]
)
def test_a_file_that_is_none(config: Path, content: str) -> None:
    config.write_text(content, encoding="utf-8")
    with pytest.raises(FaultsError, match=r"^k8s\.kubeconfig: "):
        Api(Place(str(config), ""))


def test_a_busy_cluster_is_asked_again(tmp_path: Path) -> None:
    answers = iter([Answer(429), Answer(503), Answer(500), listing("a")])
    with serving(tmp_path, lambda _: next(answers)) as server:
        found = server.api().listed("Pod", "ns")
    assert [each["metadata"]["name"] for each in found["items"]] == ["a"]


def test_what_is_denied_is_asked_once(tmp_path: Path) -> None:
    with serving(tmp_path, lambda _: Answer(403, [{"message": "no"}])) as server:
        with pytest.raises(DeniedError, match="cannot list Pod: no"):
            server.api().listed("Pod", "ns")
        assert server.count("list") == 1


def test_a_token_that_ran_out_is_read_again(tmp_path: Path) -> None:
    with serving(tmp_path, lambda request: listing() if request.token == "new" else Answer(401)) as server:  # noqa: S105
        api = server.api()
        server.know("new")
        assert api.listed("Pod", "ns")["items"] == []
        assert api.listed("Pod", "ns")["items"] == []
        assert [each.token for each in server.asked] == ["old", "new", "new"]


def test_a_token_that_nobody_knows(tmp_path: Path) -> None:
    with serving(tmp_path, lambda _: Answer(401, [{"message": "Unauthorized"}])) as server:
        with pytest.raises(StatusError, match="the cluster does not know who asks"):
            server.api().listed("Pod", "ns")
        assert server.count("list") == 2


def test_a_cluster_that_takes_connections_and_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECT", "ANSWER", "BEGIN", "TRIES"):
        monkeypatch.setattr(kubeapi, name, 0.1)
    with servers.silent() as url:
        (tmp_path / "config").write_text(OF_SERVER % (url, "x"), encoding="utf-8")
        api = Api(Place(str(tmp_path / "config"), ""))
        with pytest.raises(AwayError, match="cannot list Pod"):
            api.listed("Pod", "ns")
        with pytest.raises(AwayError, match="cannot run a command in pod"):
            api.run("ns", "pod", "model", ["true"], lambda _: b"")
        assert list(api.log("ns", "pod", "model", follow=True)) == []
