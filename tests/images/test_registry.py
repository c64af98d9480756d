from __future__ import annotations

import base64
import functools
import http.client
import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine import command
from pytest_madengine.errors import FaultsError, InfrastructureError
from pytest_madengine.images import engine
from pytest_madengine.images.registry import Registries, checked, host, push_name, repository
from pytest_madengine.secrets import Secret
from tests.backends.support import LONG, Spy, files, read, running, until
from tests.engines.registries import LOGIN, Images, Registry

LOCAL = "ci-dummy.ubuntu.amd:0123456789abcdef"
TAGGED = "ci-dummy.ubuntu.amd-0123456789abcdef"
NAMES = st.text("ab.:/-@_0localhost", max_size=30)
NOBODY = "127.0.0.1:1"
"""A registry that refuses every connection."""
Connect = Callable[..., Registries]


class TestNames:
    @pytest.mark.parametrize(
        ("reference", "expected"),
        [
            ("ubuntu", "docker.io"),
            ("ubuntu:22.04", "docker.io"),
            ("localhost:5000", "docker.io"),
            (LOCAL, "docker.io"),
            ("rocm/pytorch:latest", "docker.io"),
            ("docker.io/library/ubuntu", "docker.io"),
            ("index.docker.io/team/x", "docker.io"),
            ("localhost/x", "localhost"),
            ("localhost:5000/x:1", "localhost:5000"),
            ("gcr.io/proj/team/x@sha256:ab", "gcr.io"),
            ("[::1]:5000/x", "[::1]:5000"),
            ("", "docker.io"),
        ],
    )
    def test_the_host_of_an_image(self, reference: str, expected: str) -> None:
        assert host(reference) == expected

    @given(NAMES)
    def test_a_host_is_what_stands_before_the_first_slash_or_docker_hub(self, reference: str) -> None:
        first, slash, _ = reference.partition("/")
        if host(reference) == "docker.io":
            assert not slash or first in {"docker.io", "index.docker.io"} or not (set(first) & set(".:"))
        else:
            assert host(reference) == first
            assert host(f"{first}/other") == first

    @pytest.mark.parametrize(
        ("reference", "expected"),
        [
            ("ubuntu:22.04", "ubuntu"),
            ("docker.io/library/ubuntu", "ubuntu"),
            ("index.docker.io/team/x:1", "team/x"),
            ("localhost:5000/x", "localhost:5000/x"),
            ("localhost:5000/library/x:1@sha256:ab", "localhost:5000/library/x"),
        ],
    )
    def test_the_repository_of_an_image_is_named_as_the_engine_names_it(self, reference: str, expected: str) -> None:
        assert repository(reference) == expected

    @pytest.mark.parametrize(
        ("registry", "credentials", "expected"),
        [
            ("docker.io", {}, LOCAL),
            ("dockerhub", {"dockerhub": {"repository": "team/ci"}}, f"team/ci:{TAGGED}"),
            ("docker.io", {"dockerhub": {"repository": "team/ci"}}, f"team/ci:{TAGGED}"),
            ("index.docker.io", {"dockerhub": {"repository": "team/ci"}}, f"team/ci:{TAGGED}"),
            (
                "docker.io",
                {"dockerhub": {"repository": "a/b"}, "docker.io": {"repository": "c/d"}},
                f"c/d:{TAGGED}",
            ),
            ("docker.io/team", {"dockerhub": {"repository": "team/ci"}}, f"docker.io/team/{LOCAL}"),
            ("docker.io/team", {"docker.io/team": {"repository": "ci"}}, f"docker.io/team/ci:{TAGGED}"),
            ("localhost:5000", {}, f"localhost:5000/{LOCAL}"),
            ("localhost:5000", {"localhost:5000": {"repository": "ci"}}, f"localhost:5000/ci:{TAGGED}"),
            ("gcr.io/proj/team", {"gcr.io": {"repository": "proj/ci"}}, f"gcr.io/proj/team/{LOCAL}"),
            ("gcr.io", {"gcr.io": {"username": "u", "password": "p"}}, f"gcr.io/{LOCAL}"),
            ("gcr.io", {"gcr.io": [{"repository": "x"}]}, f"gcr.io/{LOCAL}"),
        ],
    )
    def test_the_name_to_push_under(self, registry: str, credentials: Mapping[str, Any], expected: str) -> None:
        assert push_name(registry, LOCAL, credentials) == expected

    @pytest.mark.parametrize(
        "registry",
        ["docker.io", "dockerhub", "docker.io/team", "localhost", "localhost:5000", "gcr.io/proj/team", "[::1]:5000/x"],
    )
    def test_a_registry_is_taken_as_it_is(self, registry: str) -> None:
        assert checked(registry) == registry

    @pytest.mark.parametrize(
        ("registry", "nearest"),
        [
            ("https://localhost:5000", "localhost:5000"),
            ("gcr.io/team/", "gcr.io/team"),
            ("dockerhup", "dockerhub"),
            ("myteam", "docker.io/myteam"),
            ("gcr.io/Team", ""),
            ("gcr.io/team:latest", ""),
            ("gcr.io:http/x", ""),
            ("-x.io", ""),
            ("", ""),
        ],
    )
    def test_what_is_no_registry(self, registry: str, nearest: str) -> None:
        with pytest.raises(FaultsError) as caught:
            checked(registry)
        (fault,) = caught.value.faults
        assert (fault.where, fault.found, fault.nearest) == ("registry", f"found {registry!r}", nearest)
        assert "localhost:5000" in fault.valid

    def test_a_password_in_a_registry_is_not_repeated(self) -> None:
        with pytest.raises(FaultsError, match=r"found '\*\*\*@gcr\.io'.*did you mean 'gcr\.io'") as caught:
            checked("https://me:s3cret/word@gcr.io")
        assert "s3cret" not in str(caught.value)

    @given(NAMES)
    def test_images_of_a_registry_belong_to_it(self, registry: str) -> None:
        try:
            checked(registry)
        except FaultsError:
            return
        name = push_name(registry, LOCAL, {})
        assert name.endswith(LOCAL)
        assert host(name) == registry.partition("/")[0].replace("index.docker.io", "docker.io")


class Pauses(threading.Event):
    """The end of a session that does not come; what would be waited is noted and not waited."""

    def __init__(self, during: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.seconds: list[float | None] = []
        self.during = during

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        self.during()
        return self.is_set()


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The docker configuration of the user, who has a folder for temporary files too."""
    users = tmp_path / "users"
    users.mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(users))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return users


@pytest.fixture
def connect(users: Path) -> Iterator[Connect]:
    """Makes registries of a session, which are closed at the end."""
    made: list[Registries] = []

    def connect(credentials: Mapping[str, Any] | None = None, stopping: threading.Event | None = None) -> Registries:
        made.append(Registries(credentials or {}, stopping or threading.Event()))
        return made[-1]

    yield connect
    for registries in made:
        registries.close()


def pushed_differently(registry: Registry, reference: str) -> str:
    """Give the registry the same image as `other`, in a manifest with one more blank; says its digest."""
    path = f"/v2/{repository(reference).partition('/')[2]}/manifests"
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    with closing(http.client.HTTPConnection(registry.address)) as connection:
        connection.request("GET", f"{path}/{reference.rpartition(':')[2]}", headers={"Accept": kind})
        manifest = connection.getresponse().read() + b" "
        connection.request("PUT", f"{path}/other", manifest, {"Content-Type": kind})
        with connection.getresponse() as answer:
            return str(answer.headers["Docker-Content-Digest"])


def wrong(login: Mapping[str, str]) -> dict[str, str]:
    return {**login, "password": Secret("planted-wrong-password")}


def entry(username: str = LOGIN.username, password: str = LOGIN.password) -> dict[str, str]:
    return {"username": Secret(username), "password": Secret(password)}


class Recorder:
    """A docker command that notes its arguments and environment, and goes on as `then`, shell text, says."""

    def __init__(self, folder: Path, then: str) -> None:
        self.folder = folder
        program = folder / "docker"
        program.write_text(
            f'#!/bin/sh\necho "$@" >>{folder}/arguments\nenv >>{folder}/environment\n{then}\n', encoding="utf-8"
        )
        program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return read(self.folder / "arguments").splitlines()

    def count(self, word: str) -> int:
        return sum(call.split()[0] == word for call in self.calls)


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Recorder]:
    """Puts a docker command of the test's own in the place of the real one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return functools.partial(Recorder, folder)


@pytest.fixture
def recorder(replaced: Callable[[str], Recorder]) -> Recorder:
    """The real docker command, looked at."""
    return replaced(f'exec {shutil.which("docker", path=os.environ["PATH"].partition(os.pathsep)[2])} "$@"')


@pytest.mark.requires_registry
class TestOpenRegistry:
    def test_an_image_comes_back_by_the_digest_that_its_push_gave(
        self, registry: Registry, connect: Connect, images: Images
    ) -> None:
        local = images.make()
        remote = push_name(registry.address, local, {})
        registries = connect()
        digest = registries.push(local, remote)
        known = engine.inspect(remote)
        assert known is not None
        assert known["RepoDigests"] == [f"{repository(remote)}@{digest}"]
        assert registries.digest(remote) == digest
        images.remove()
        assert engine.inspect(remote) is None
        assert registries.digest(remote) == digest
        pulled = registries.pull(f"{repository(remote)}@{digest}")
        assert pulled["Id"] == known["Id"]
        assert registries.environment() == {}

    def test_a_push_gives_its_own_digest_where_the_image_has_another_there(
        self, registry: Registry, connect: Connect, images: Images
    ) -> None:
        local = images.make()
        remote = push_name(registry.address, local, {})
        registries = connect()
        first = registries.push(local, remote)
        second = pushed_differently(registry, remote)
        known = registries.pull(f"{repository(remote)}:other")
        assert set(known["RepoDigests"]) == {f"{repository(remote)}@{digest}" for digest in (first, second)}
        assert registries.digest(f"{repository(remote)}:other") == second
        assert registries.push(local, f"{repository(remote)}:again") == first

    def test_a_pull_replaces_a_local_image_of_that_name(
        self, registry: Registry, connect: Connect, images: Images
    ) -> None:
        pushed, stale = images.make(), images.make()
        remote = push_name(registry.address, pushed, {})
        registries = connect()
        registries.push(pushed, remote)
        subprocess.run(["docker", "tag", stale, remote], check=True)
        assert registries.pull(remote)["Id"] == images.ids[0]

    def test_an_image_that_a_registry_lacks(self, registry: Registry, connect: Connect) -> None:
        pauses = Pauses()
        registries = connect(stopping=pauses)
        name = f"{registry.address}/none:1"
        with pytest.raises(InfrastructureError, match=rf"^registry {registry.address}: docker pull {name} .*not found"):
            registries.pull(name)
        with pytest.raises(InfrastructureError, match=rf"^registry {registry.address}: .* {name}: manifest unknown"):
            registries.digest(name)
        assert pauses.seconds == []

    def test_a_local_image_that_is_not_there(self, registry: Registry, connect: Connect) -> None:
        with pytest.raises(InfrastructureError, match=r"docker tag nobody:x .* No such image"):
            connect().push("nobody:x", f"{registry.address}/nobody:x")

    def test_the_engine_that_a_login_reaches_is_the_users(
        self, registry: Registry, connect: Connect, images: Images, users: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        endpoint = f"host={engine._host()}"
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        endpoint = (
            f"host={engine.client().api.base_url.replace('http+docker://localhost', 'unix:///var/run/docker.sock')}"
        )
        for arguments in (["create", "mine", "--docker", endpoint], ["use", "mine"]):
            subprocess.run(["docker", "context", *arguments], check=True, capture_output=True)
        local = images.make()
        registries = connect({registry.address: entry()})
        registries.push(local, push_name(registry.address, local, {}))
        env = {**os.environ, **registries.environment()}
        shown = subprocess.run(["docker", "context", "show"], env=env, check=True, capture_output=True, text=True)
        assert shown.stdout.strip() == "mine"
        assert registries.environment()["DOCKER_CONFIG"] != str(users)


@pytest.mark.requires_registry
class TestPrivateRegistry:
    def test_the_login_of_credential_json_is_used(
        self, private_registry: Registry, connect: Connect, images: Images
    ) -> None:
        local = images.make()
        place = private_registry.address
        remote = push_name(place, local, {})
        registries = connect({place: entry()})
        digest = registries.push(local, remote)
        images.remove()
        assert registries.digest(remote) == digest
        assert registries.pull(f"{repository(remote)}@{digest}")["Id"] == images.ids[0]

    def test_the_closest_key_counts(self, private_registry: Registry, connect: Connect, images: Images) -> None:
        local = images.make()
        place = f"{private_registry.address}/team"
        registries = connect(
            {private_registry.address: wrong(entry()), place: entry(), f"{place}/x": {"repository": "other"}}
        )
        assert registries.push(local, push_name(place, local, {})).startswith("sha256:")

    def test_other_docker_commands_get_the_login(
        self, private_registry: Registry, connect: Connect, images: Images
    ) -> None:
        local = images.make()
        remote = push_name(private_registry.address, local, {})
        registries = connect({private_registry.address: entry()})
        registries.push(local, remote)
        pull = ["docker", "pull", "--quiet", remote]
        assert not command.run(pull)
        assert command.run(pull, env={**os.environ, **registries.environment()})

    def test_a_session_logs_in_once(
        self, private_registry: Registry, connect: Connect, images: Images, recorder: Recorder
    ) -> None:
        local = [images.make() for _ in range(4)]
        registries = connect({private_registry.address: entry()})
        remote = [push_name(private_registry.address, name, {}) for name in local]
        with ThreadPoolExecutor(4) as pool:
            digests = list(pool.map(registries.push, local, remote))
        assert [registries.digest(name) for name in remote] == digests
        registries.pull(remote[0])
        assert (recorder.count("push"), recorder.count("login")) == (4, 1)

    def test_a_wrong_password_is_tried_once_and_blamed_on_its_entry(
        self, private_registry: Registry, connect: Connect, recorder: Recorder
    ) -> None:
        place = private_registry.address
        pauses = Pauses()
        registries = connect({place: wrong(entry())}, pauses)
        said = rf"^registry {place}: docker login failed: .*401 Unauthorized.*; the login is that of '{place}' in cred"
        for _ in range(2):
            with pytest.raises(InfrastructureError, match=said) as caught:
                registries.pull(f"{place}/x:1")
            assert "planted" not in str(caught.value)
        with pytest.raises(InfrastructureError, match=said):
            registries.digest(f"{place}/x:1")
        assert (recorder.count("login"), recorder.count("pull")) == (1, 0)
        assert pauses.seconds == []
        assert registries.environment() == {}

    def test_without_an_entry_a_refusal_says_what_to_write(
        self, private_registry: Registry, connect: Connect, images: Images
    ) -> None:
        local = images.make()
        place = private_registry.address
        registries = connect({"other.example": entry(), place: {"username": "no-password"}})
        remote = push_name(place, local, {})
        hint = rf"credential.json has no \"username\" and \"password\" under '{place}', so docker's own login was used"
        with pytest.raises(
            InfrastructureError, match=rf"docker push {remote} failed \(exit 1\): no basic auth .*{hint}"
        ):
            registries.push(local, remote)
        for ask in (registries.pull, registries.digest):
            with pytest.raises(InfrastructureError, match=hint):
                ask(remote)

    def test_without_an_entry_the_users_own_login_is_used(
        self, private_registry: Registry, connect: Connect, images: Images, users: Path
    ) -> None:
        write_login(users, private_registry.address, LOGIN.username, LOGIN.password)
        local = images.make()
        registries = connect()
        assert registries.push(local, push_name(private_registry.address, local, {})).startswith("sha256:")
        assert registries.environment() == {}

    def test_the_users_other_logins_go_on_to_work_beside_ours(
        self, registry: Registry, private_registry: Registry, connect: Connect, images: Images, users: Path
    ) -> None:
        write_login(users, private_registry.address, LOGIN.username, LOGIN.password)
        local = images.make()
        registries = connect({registry.address: entry()})
        for place in (registry.address, private_registry.address):
            registries.push(local, push_name(place, local, {}))
        assert registries.environment()

    def test_after_closing_it_logs_in_again(
        self, private_registry: Registry, connect: Connect, images: Images, recorder: Recorder
    ) -> None:
        local = images.make()
        remote = push_name(private_registry.address, local, {})
        registries = connect({private_registry.address: entry()})
        for expected in (1, 2):
            registries.push(local, remote)
            registries.close()
            assert recorder.count("login") == expected
            assert registries.environment() == {}


def write_login(folder: Path, place: str, username: str, password: str) -> None:
    """What `docker login` leaves in a configuration."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {place: {"auth": auth}}}), encoding="utf-8")


@pytest.mark.requires_registry
class TestSecrecy:
    def test_a_password_stays_in_one_private_file_and_goes_with_it(
        self, private_registry: Registry, connect: Connect, images: Images, recorder: Recorder, tmp_path: Path
    ) -> None:
        local = images.make()
        registries = connect({private_registry.address: entry()})
        with Spy(LOGIN.password) as spy:
            remote = push_name(private_registry.address, local, {})
            registries.push(local, remote)
            registries.pull(remote)
            registries.digest(remote)
        config = Path(registries.environment()["DOCKER_CONFIG"])
        assert holding_password(tmp_path) == {str((config / "config.json").relative_to(tmp_path))}
        assert stat.S_IMODE(config.stat().st_mode) == 0o700
        assert stat.S_IMODE((config / "config.json").stat().st_mode) == 0o600
        registries.close()
        assert holding_password(tmp_path) == set()
        assert list((tmp_path / "temporary").iterdir()) == []
        assert spy.seen == []
        login = f"login {private_registry.address} --username {LOGIN.username} --password-stdin"
        assert login in recorder.calls

    def test_the_users_configuration_stays_as_it_is(
        self, private_registry: Registry, connect: Connect, images: Images, users: Path
    ) -> None:
        write_login(users, private_registry.address, "me", "my-own-password")
        (users / "contexts" / "meta").mkdir(parents=True)
        before = files(users)
        local = images.make()
        registries = connect({private_registry.address: entry()})
        registries.push(local, push_name(private_registry.address, local, {}))
        folder = Path(registries.environment()["DOCKER_CONFIG"])
        assert (folder / "contexts").resolve() == users / "contexts"
        registries.close()
        assert files(users) == before
        assert (users / "contexts" / "meta").is_dir()

    def test_a_login_does_not_enter_the_users_credential_store(
        self, private_registry: Registry, connect: Connect, images: Images, users: Path, recorder: Recorder
    ) -> None:
        helper, asked = recorder.folder / "docker-credential-planted", users / "asked"
        helper.write_text(f'#!/bin/sh\necho "$1" >>{asked}\necho credentials not found in native keychain\nexit 1\n')
        helper.chmod(0o755)
        (users / "config.json").write_text('{"credsStore": "planted"}', encoding="utf-8")
        local = images.make()
        registries = connect({private_registry.address: entry()})
        registries.push(local, push_name(private_registry.address, local, {}))
        assert set(read(asked).split()) <= {"get", "list"}
        pull = ["docker", "pull", f"{NOBODY}/x:1"]
        command.run(pull, env={**os.environ, **registries.environment()})
        assert "get" in read(asked)


def holding_password(folder: Path) -> set[str]:
    """The files below a folder that a password can be read from."""
    written = base64.b64encode(f"{LOGIN.username}:{LOGIN.password}".encode())
    return {name for name, content in files(folder).items() if LOGIN.password.encode() in content or written in content}


class Rude:
    """A server that counts connections and closes each at once."""

    def __init__(self) -> None:
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                if connection.recv(2**16) == b"stop":
                    return
                self.connections += 1

    def close(self) -> None:
        with socket.create_connection(self._listening.getsockname()) as connection:
            connection.sendall(b"stop")
        self._thread.join()
        self._listening.close()


@pytest.fixture
def rude() -> Iterator[Rude]:
    server = Rude()
    yield server
    server.close()


@pytest.mark.requires_registry
class TestTrouble:
    def test_a_registry_that_breaks_off_is_asked_three_times(self, rude: Rude, connect: Connect) -> None:
        command.run(["docker", "pull", "--quiet", f"{rude.address}/x:1"])
        once = rude.connections
        assert once > 0
        pauses = Pauses()
        registries = connect(stopping=pauses)
        for ask in (registries.pull, registries.digest):
            pauses.seconds, rude.connections = [], 0
            with pytest.raises(InfrastructureError, match=rf"^registry {rude.address}: .*{rude.address}/x:1.*EOF"):
                ask(f"{rude.address}/x:1")
            assert rude.connections == 3 * once
            assert pauses.seconds == [1, 2]

    def test_a_push_and_a_login_are_tried_three_times_too(
        self, connect: Connect, images: Images, recorder: Recorder
    ) -> None:
        local = images.make()
        with pytest.raises(InfrastructureError, match=rf"docker push {NOBODY}/x:1 failed \(exit 1\): .*refused"):
            connect(stopping=Pauses()).push(local, f"{NOBODY}/x:1")
        with pytest.raises(
            InfrastructureError, match=rf"^registry {NOBODY}: docker login failed \(exit 1\): .*refused"
        ):
            connect({NOBODY: entry()}, Pauses()).pull(f"{NOBODY}/x:1")
        assert (recorder.count("push"), recorder.count("login"), recorder.count("pull")) == (3, 3, 0)

    def test_a_registry_that_comes_back_is_used(
        self, registry_program: str, tmp_path: Path, connect: Connect, images: Images
    ) -> None:
        folder = tmp_path / "registry"
        folder.mkdir()
        local = images.make()
        with Registry(registry_program, folder) as mortal:
            remote = push_name(mortal.address, local, {})
            pauses = Pauses(during=mortal.start)
            mortal.stop()
            digest = connect(stopping=pauses).push(local, remote)
            assert pauses.seconds == [1]
            assert connect().digest(remote) == digest


PUSH_503 = "received unexpected HTTP status: 503 Service Unavailable"
HEAD_502 = "unexpected status from HEAD request to https://gcr.io/v2/x/manifests/1: 502 <none>"
LIMIT = "toomanyrequests: You have reached your pull rate limit."
HANDSHAKE = 'Get "https://gcr.io/v2/": net/http: TLS handshake timeout'
RESET = "read tcp 10.0.0.1:4->10.0.0.2:443: read: connection reset by peer"
RESOLVER = "dial tcp: lookup gcr.io on 10.0.0.53:53: server misbehaving"
DENIED = 'denied: requested access to the resource is denied, Get "https://gcr.io/v2/": net/http: timeout'
UNAUTHORIZED = "unauthorized: authentication required (HTTP 503)"


class TestWhatDockerSays:
    @pytest.mark.parametrize(
        "words", [PUSH_503, HEAD_502, LIMIT, HANDSHAKE, RESET, RESOLVER, "unexpected EOF", "manifest blob unknown"]
    )
    def test_trouble_on_the_way_is_worth_another_try(
        self, words: str, connect: Connect, replaced: Callable[[str], Recorder]
    ) -> None:
        assert self.tries(words, connect, replaced) == 3

    @pytest.mark.parametrize(
        "words",
        [
            DENIED,
            UNAUTHORIZED,
            "manifest unknown",
            "manifest for gcr.io/x:503 not found",
            "dial tcp: lookup nobody.invalid on 10.0.0.53:53: no such host",
            "no space left on device",
            "invalid reference format",
        ],
    )
    def test_what_will_not_pass_is_not_tried_again(
        self, words: str, connect: Connect, replaced: Callable[[str], Recorder]
    ) -> None:
        assert self.tries(words, connect, replaced) == 1

    def tries(self, words: str, connect: Connect, replaced: Callable[[str], Recorder]) -> int:
        fake = replaced(f"cat <<'WORDS' >&2\nError response from daemon: {words}\nWORDS\nexit 1")
        with pytest.raises(InfrastructureError) as caught:
            connect(stopping=Pauses()).pull("gcr.io/x:1")
        assert words in str(caught.value)
        return fake.count("pull")

    @pytest.mark.parametrize(
        ("environ", "blamed"),
        [
            ({}, "'dockerhub' in credential.json"),
            (
                {"MAD_DOCKERHUB_USER": "u", "MAD_DOCKERHUB_PASSWORD": "p"},
                "MAD_DOCKERHUB_USER and MAD_DOCKERHUB_PASSWORD",
            ),
        ],
    )
    @pytest.mark.parametrize("image", ["team/x:1", "docker.io/team/x:1", "index.docker.io/team/x:1"])
    def test_the_login_at_docker_hub(
        self,
        image: str,
        environ: dict[str, str],
        blamed: str,
        connect: Connect,
        replaced: Callable[[str], Recorder],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("MAD_DOCKERHUB_USER", "MAD_DOCKERHUB_PASSWORD"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        fake = replaced('read -r given; echo "unauthorized: incorrect username or password $given"; exit 1')
        registries = connect({"dockerhub": entry()})
        with pytest.raises(InfrastructureError, match=r"^registry docker\.io: docker login failed") as caught:
            registries.pull(image)
        assert str(caught.value).endswith(f"password ***; the login is that of {blamed}")
        assert fake.calls == [f"login --username {LOGIN.username} --password-stdin"]

    def test_a_push_that_says_no_digest(self, connect: Connect, replaced: Callable[[str], Recorder]) -> None:
        replaced("echo 'The push refers to repository [gcr.io/x]'; echo 0123456789ab: Pushed; echo strange")
        with pytest.raises(InfrastructureError, match=r"docker push gcr.io/x:1 failed \(exit 0\): strange$"):
            connect().push("x:1", "gcr.io/x:1")

    def test_a_configuration_that_is_none(self, connect: Connect, users: Path) -> None:
        file = users / "config.json"
        for text, found in (("{", "cannot be read: "), ("[]", "found a list")):
            file.write_text(text, encoding="utf-8")
            with pytest.raises(FaultsError, match=rf"^{file}: {found}"):
                connect({"gcr.io": entry()}).pull("gcr.io/x:1")

    def test_no_place_for_a_login(self, connect: Connect, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(users / "nowhere"))
        with pytest.raises(InfrastructureError, match=rf"{users} cannot be copied for a login: .*No such file"):
            connect({"gcr.io": entry()}).pull("gcr.io/x:1")


class TestEndOfTheSession:
    def test_a_pause_ends_with_it(self, connect: Connect, replaced: Callable[[str], Recorder]) -> None:
        fake = replaced("echo connection refused; exit 1")
        stopping = Pauses()
        stopping.during = stopping.set
        with pytest.raises(InfrastructureError, match=r"^registry gcr\.io: gcr\.io/x:1 is given up, the session ends$"):
            connect(stopping=stopping).pull("gcr.io/x:1")
        assert (stopping.seconds, fake.count("pull")) == ([1], 1)

    def test_a_transfer_is_ended_with_it(self, connect: Connect, replaced: Callable[[str], Recorder]) -> None:
        nap = f"7201.{secrets.randbelow(10**9):09}"
        fake = replaced(f"exec sleep {nap}")
        registries = connect()
        with ThreadPoolExecutor(1) as pool:
            pulling = pool.submit(registries.pull, "gcr.io/x:1")
            until(lambda: running(nap))
            command.end_streams()
            with pytest.raises(InfrastructureError, match=r"docker pull gcr.io/x:1 failed \(exit -15\)"):
                pulling.result(LONG)
        assert fake.count("pull") == 1
        assert not running(nap)
