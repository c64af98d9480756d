"""Image registries: names for what is pushed, logins of this session's own, pushes and pulls with retries."""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from tenacity.nap import sleep_using_event

from pytest_madengine import command
from pytest_madengine.context.credentials import DOCKERHUB
from pytest_madengine.context.credentials import NAME as CREDENTIALS
from pytest_madengine.errors import Fault, FaultsError, InfrastructureError, nearest
from pytest_madengine.images import engine
from pytest_madengine.secrets import MASK, Masker, Secret

T = TypeVar("T")

HUB = "docker.io"
HUB_NAMES = (HUB, "index.docker.io", "dockerhub")
"""What Docker Hub is called; each of them may be its key in credential.json."""
HUB_SERVER = "https://index.docker.io/v1/"
"""What Docker Hub is called in docker's own configuration."""
PORT = r"(?::\d{1,5})?"
HOST = rf"(?:[A-Za-z0-9]+(?:[.-]+[A-Za-z0-9]+)*|\[[0-9A-Fa-f:]+\]){PORT}"
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REGISTRY = re.compile(rf"(?P<host>{HOST})(?:/{PART})*")
VALID = f"a host, with a path or without: localhost:5000, ghcr.io/team, {HUB}, {HUB}/team, dockerhub"

UNWELCOME = re.compile(
    r"unauthorized|(?<!permission )denied|forbidden|authentication required|no basic auth|incorrect username",
    re.IGNORECASE,
)
"""What docker and registries say where a login is wrong, missing or not enough."""
ABSENT = re.compile(
    r"not found|manifest unknown|name unknown|no such (?:host|image)|does not exist locally", re.IGNORECASE
)
PASSING = re.compile(
    r"connection (?:refused|reset)|broken pipe|timeout|timed out|deadline exceeded|(?-i:\bEOF\b)|TLS handshake"
    r"|network is unreachable|no route to host|server misbehaving|temporary failure|try again"
    r"|too ?many ?requests|internal server error|bad gateway|service unavailable|gateway time"
    r"|(?:\bHTTP|\bstatus(?: code)?:?|\brequest to \S+:) (?:429|5\d\d)\b"
    r"|blob unknown",  # two pushes of the same layers met
    re.IGNORECASE,
)
"""What they say where another try may succeed."""
DIGEST = re.compile(r"\bdigest: (sha256:[0-9a-f]{64})\b")
PROGRESS = re.compile(r"^(?:The push refers to repository .*|[0-9a-f]{12}: .*)\n", re.MULTILINE)
TRIES = 3


def host(reference: str) -> str:
    """The registry of an image, by docker's own rule; `docker.io` where the name holds none."""
    first, slash, _ = reference.partition("/")
    return first if slash and _names_host(first) and first not in HUB_NAMES else HUB


def _names_host(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost"


def repository(reference: str) -> str:
    """The image's name without tag and digest, as the engine lists it: what is on Docker Hub without its host."""
    path, slash, last = reference.partition("@")[0].rpartition("/")
    name = path + slash + last.partition(":")[0]
    if host(name) != HUB:
        return name
    return re.sub(r"^(?:index\.)?docker\.io/", "", name).removeprefix("library/")


def checked(registry: str) -> str:
    """The registry as it was given.

    Raises:
        FaultsError: docker would not take it for a registry.
    """
    if not _is_registry(registry):
        secretive = re.sub(r"^.*@", f"{MASK}@", registry)
        raise FaultsError([Fault("registry", f"found {secretive!r}", VALID, _meant(registry))])
    return registry


def _is_registry(text: str) -> bool:
    match = REGISTRY.fullmatch(text)
    return text in HUB_NAMES or bool(match and _names_host(match["host"]))


def _meant(registry: str) -> str:
    """The registry that somebody may have meant who wrote this; '' where nobody can tell."""
    bare = re.sub(r"^(?:\w+://)?(?:.*@)?", "", registry.strip()).rstrip("/")
    if _is_registry(bare):
        return bare
    team = f"{HUB}/{bare}"
    return nearest(bare, HUB_NAMES) or (team if _is_registry(team) else "")


def push_name(registry: str, local: str, credentials: Mapping[str, Any]) -> str:
    """The name under which a local image goes to a registry.

    A repository that credential.json states for this registry takes all images, told apart by their tags.

    Args:
        registry: as `checked` lets it through.
        local: the image's name here, with its tag.
        credentials: entries by name, as credential.json has them.
    """
    on_hub = registry in HUB_NAMES
    keys = (registry, *HUB_NAMES) if on_hub else (registry,)
    stated = next(filter(None, (_text(credentials, key, "repository") for key in keys)), "")
    name = f"{stated}:{local.replace(':', '-')}" if stated else local
    return name if on_hub else f"{registry}/{name}"


def _text(credentials: Mapping[str, Any], key: str, field: str) -> str:
    """A field of an entry; '' where there is none, or no text."""
    entry = credentials.get(key)
    value = entry.get(field) if isinstance(entry, Mapping) else None
    return value if isinstance(value, str) else ""


def _keys(reference: str) -> Iterator[str]:
    """Where credential.json may have the login for an image, the closest first."""
    place, name = host(reference), repository(reference)
    parts = (f"{HUB}/{name}" if place == HUB else name).split("/")
    yield from ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    yield from HUB_NAMES[1:] if place == HUB else ()


class Login(NamedTuple):
    """Who logs in to a registry, which is called as images call it."""

    place: str
    username: str
    password: Secret

    @property
    def server(self) -> str:
        """The registry as `docker login` takes it; '' for Docker Hub."""
        return "" if self.place == HUB else self.place


class Registries:
    """The registries of one session. Any thread may push and pull.

    A registry that credential.json has a username and password for is logged in to before it is first used, once, and
    apart from the user's own docker configuration. Of two entries for one host, the first that is needed counts.

    Args:
        credentials: entries by name, as credential.json has them.
        stopping: set when the session ends; nothing is tried again then.
    """

    def __init__(self, credentials: Mapping[str, Any], stopping: threading.Event) -> None:
        self._credentials = credentials
        self._stopping = stopping
        self._mask = Masker(_text(credentials, key, "password") for key in credentials)
        self._lock = threading.Lock()
        self._refusals: dict[str, str] = {}
        self._config: _PrivateConfig | None = None

    def push(self, local: str, remote: str) -> str:
        """Push a local image under a name of a registry.

        Returns:
            The registry's digest of it, `sha256:…`.

        Raises:
            InfrastructureError: there is no such image, or the registry refused or cannot be reached.
        """

        def push(env: Mapping[str, str]) -> str:
            _docker(["tag", local, remote], env).require(f"docker tag {local} {remote}")
            return _pushed(_docker(["push", remote], env), remote)

        return self._at(remote, push)

    def pull(self, reference: str) -> dict[str, Any]:
        """Pull an image, also where one of that name is here already, and say what the engine knows of it.

        Raises:
            InfrastructureError: the registry refused, lacks it or cannot be reached.
        """
        return self._at(reference, lambda env: engine.pull(reference, env))

    def digest(self, reference: str) -> str:
        """The registry's digest of an image, which is not pulled.

        Raises:
            InfrastructureError: the registry refused, lacks it or cannot be reached.
        """
        key = self._key(reference)
        login = {field: _text(self._credentials, key, field) for field in ("username", "password")} if key else None
        return self._at(reference, lambda _: engine.remote_digest(reference, login))

    def logins(self, references: Iterable[str]) -> list[Login]:
        """The logins that other machines need for these images, one for each registry that credential.json knows."""
        found: dict[str, Login] = {}
        for reference in references:
            if key := self._key(reference):
                username, password = (_text(self._credentials, key, field) for field in ("username", "password"))
                found.setdefault(host(reference), Login(host(reference), username, Secret(password)))
        return list(found.values())

    def environment(self) -> dict[str, str]:
        """Variables by which docker commands use the logins of this session; none where it has none."""
        config = self._config
        return {"DOCKER_CONFIG": str(config.folder)} if config and "" in tuple(self._refusals.values()) else {}

    def close(self) -> None:
        """Remove what the logins wrote."""
        with self._lock:
            self._refusals.clear()
            config, self._config = self._config, None
        if config:
            config.remove()

    def _at(self, reference: str, work: Callable[[Mapping[str, str]], T]) -> T:
        """Do the work, logged in, and again where something that may pass was in the way."""
        place, key = host(reference), self._key(reference)

        def attempt() -> T:
            if self._stopping.is_set():
                raise InfrastructureError(f"{reference} is given up, the session ends")
            if key:
                self._log_in(place, key)
            return work({**os.environ, **self.environment()})

        try:
            return self._retrying()(attempt)
        except InfrastructureError as error:
            said = f"registry {place}: {error}{_whose(place, key) if UNWELCOME.search(str(error)) else ''}"
            raise InfrastructureError(self._mask(said)) from None

    def _retrying(self) -> Retrying:
        return Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential(),
            sleep=sleep_using_event(self._stopping),
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )

    def _key(self, reference: str) -> str:
        """The key of the login for an image; '' where docker's own is to be used."""
        return next(filter(self._is_login, _keys(reference)), "")

    def _is_login(self, key: str) -> bool:
        return bool(_text(self._credentials, key, "username") and _text(self._credentials, key, "password"))

    def _log_in(self, place: str, key: str) -> None:
        """Log in unless that was done; a refusal stands, so that many images do not lock the account."""
        with self._lock:
            if place not in self._refusals:
                self._config = self._config or _PrivateConfig()
                self._refusals[place] = self._refusal(place, key, self._config)
            refusal = self._refusals[place]
        if refusal:
            raise InfrastructureError(refusal)

    def _refusal(self, place: str, key: str, config: _PrivateConfig) -> str:
        config.keep_here(HUB_SERVER if place == HUB else place)
        server = [] if place == HUB else [place]
        username, password = (_text(self._credentials, key, field) for field in ("username", "password"))
        env = {**os.environ, "DOCKER_CONFIG": str(config.folder)}
        done = _docker(["login", *server, "--username", username, "--password-stdin"], env, stdin=password)
        if done or not UNWELCOME.search(done.output):
            done.require("docker login")
            return ""
        return f"docker login failed: {done.output.strip()}"


class _PrivateConfig:
    """A copy of the user's docker configuration that can be logged in with; contexts and builders are shared.

    Raises:
        FaultsError: the user's configuration is none.
        InfrastructureError: the copy cannot be made.
    """

    def __init__(self) -> None:
        users = _users()
        self._content = _configuration(users / "config.json")
        try:
            self._temporary = tempfile.TemporaryDirectory(prefix="madengine-docker-", ignore_cleanup_errors=True)
            self.folder = Path(self._temporary.name)
            (self.folder / "config.json").touch(mode=0o600)
            for entry in users.iterdir() if users.is_dir() else ():
                if entry.name != "config.json":
                    (self.folder / entry.name).symlink_to(entry)
        except OSError as error:
            raise InfrastructureError(f"{users} cannot be copied for a login: {error}") from None

    def keep_here(self, server: str) -> None:
        """Let the login for a server be written into this copy, not into the user's credential store."""
        file = self.folder / "config.json"
        config = json.loads(file.read_bytes() or "null") or self._content
        file.write_text(json.dumps(_keeping(config, [server])), encoding="utf-8")

    def remove(self) -> None:
        """Remove the copy; what it shares stays."""
        self._temporary.cleanup()


def variables(logins: Sequence[Login]) -> dict[str, Secret]:
    """What a script on another machine needs in its environment to log in with these.

    Raises:
        FaultsError: the user's docker configuration is none.
    """
    if not logins:
        return {}
    passwords = {f"MADENGINE_PASSWORD_{at}": login.password for at, login in enumerate(logins)}
    return {**passwords, "MADENGINE_DOCKER_CONFIG": configuration(logins)}


def configuration(logins: Iterable[Login]) -> Secret:
    """The user's docker configuration, as the text of a copy that keeps these logins in itself.

    Raises:
        FaultsError: the user's configuration is none.
    """
    servers = [login.server or HUB_SERVER for login in logins]
    return Secret(json.dumps(_keeping(_configuration(_users() / "config.json"), servers)))


def _users() -> Path:
    """Where the user's docker configuration is."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker").absolute()


def _keeping(config: Mapping[str, Any], servers: Iterable[str]) -> dict[str, Any]:
    """The configuration, whose logins for these servers go into no credential store."""
    return {**config, "credHelpers": {**(config.get("credHelpers") or {}), **dict.fromkeys(servers, "")}}


def _configuration(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes()) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise FaultsError([Fault(str(file), f"cannot be read: {error}", "docker's configuration as JSON")]) from None
    if not isinstance(found, dict):
        raise FaultsError([Fault(str(file), f"found a {type(found).__name__}", "docker's configuration, an object")])
    return found


def _docker(arguments: list[str], env: Mapping[str, str], stdin: str = "") -> command.Completed:
    return command.run(["docker", *arguments], seconds=engine.LONG, env=env, endable=True, stdin=stdin)


def _pushed(done: command.Completed, remote: str) -> str:
    """The digest that a push ends with; one image may have several in the same repository."""
    found = DIGEST.search(done.output)
    if done and found:
        return found[1]
    words = PROGRESS.sub("", done.output).strip()[-2000:]
    raise InfrastructureError(f"docker push {remote} failed (exit {done.code}): {words}")


def _may_pass(error: BaseException) -> bool:
    said = str(error)
    is_ours = isinstance(error, InfrastructureError)
    return is_ours and bool(PASSING.search(said)) and not UNWELCOME.search(said) and not ABSENT.search(said)


def _whose(place: str, key: str) -> str:
    """Whose login a registry did not like."""
    if not key:
        names = '"username" and "password"'
        known = "dockerhub" if place == HUB else place
        return f"; {CREDENTIALS} has no {names} under {known!r}, so docker's own login was used"
    variables = (DOCKERHUB["username"], DOCKERHUB["password"])
    if key == "dockerhub" and all(map(os.environ.get, variables)):
        return f"; the login is that of {' and '.join(variables)}"
    return f"; the login is that of {key!r} in {CREDENTIALS}"
