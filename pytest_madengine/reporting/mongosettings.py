"""Which MongoDB server is meant, and who asks: from the environment and a URI. Nothing is contacted here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_plus

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.secrets import Masker, Secret

SCHEMES = ("mongodb://", "mongodb+srv://")
PARTS = re.compile(r"mongodb(\+srv)?://((?P<login>.*)@)?(?P<hosts>[^/?@]+)(/(?P<database>[^?]*))?(\?(?P<options>.*))?")
EXAMPLE = "mongodb://user@host:27017/database; special characters of user and password percent-encoded"
HOST, PORT, TIMEOUT = "localhost", "27017", "5000"
AUTH_SOURCE = "admin"
DATABASE, COLLECTION = "madengine", "results"
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
LONGEST_TIMEOUT = 3_600_000


@dataclass(frozen=True)
class Server:
    """A server and how to speak with it.

    Attributes:
        uri: without a login from the environment.
        username: from the environment; '' where the URI has one, or none is needed.
        password: the same.
        auth_source: the database that knows the user; '' where the URI decides.
        timeout: milliseconds to wait for a server.
        tls: None where the URI decides.
        ca_file: certificates that are trusted; None for those of this machine.
        database: where results go if nobody says otherwise.
        collection: the same.
    """

    uri: Secret
    username: str
    password: Secret
    auth_source: str
    timeout: int
    tls: bool | None
    ca_file: Path | None
    database: str
    collection: str

    @property
    def hosts(self) -> str:
        """Its address, without a login: `localhost:27017`."""
        found = PARTS.fullmatch(self.uri)
        return found["hosts"] if found else "?"

    @property
    def mask(self) -> Masker:
        """Hides the password, also that of the URI."""
        return Masker([self.password, *_passwords(self.uri)])


def of_environment(environ: Mapping[str, str], uri: str = "") -> Server:
    """The server that MONGO_* variables name.

    Args:
        environ: the environment. MONGO_URI, else MONGO_HOST and MONGO_PORT; MONGO_USER, MONGO_PASSWORD and
            MONGO_AUTH_SOURCE; MONGO_TIMEOUT_MS; MONGO_TLS and MONGO_TLS_CA_FILE; MONGO_DATABASE, MONGO_COLLECTION.
        uri: goes before MONGO_URI.

    Raises:
        FaultsError: everything that is wrong in them.
    """
    found: list[Fault] = []
    given = {name: value for name, value in environ.items() if name.startswith("MONGO_") and value}
    where, text = ("--madengine-mongo", uri) if uri else ("MONGO_URI", given.get("MONGO_URI", ""))
    parts = _parts(text, where, found)
    host = parts["hosts"] if parts else given.get("MONGO_HOST", HOST)
    port = _whole(given, "MONGO_PORT", PORT, 65535, found)
    timeout = _whole(given, "MONGO_TIMEOUT_MS", TIMEOUT, LONGEST_TIMEOUT, found)
    username, password = _login(given, parts, found)
    source = given.get("MONGO_AUTH_SOURCE", "")
    server = Server(
        uri=Secret(text or f"mongodb://{_bracketed(host)}:{port}/"),
        username=username,
        password=Secret(password),
        auth_source=source or (AUTH_SOURCE if username and "authsource=" not in text.lower() else ""),
        timeout=timeout,
        tls=_tls(given, found),
        ca_file=_file(given, "MONGO_TLS_CA_FILE", found),
        database=given.get("MONGO_DATABASE") or unquote_plus((parts and parts["database"]) or "") or DATABASE,
        collection=given.get("MONGO_COLLECTION") or COLLECTION,
    )
    if found:
        raise FaultsError(found)
    return server


def warnings(uri: str) -> list[str]:
    """What is to be said of a URI on a command line, where everybody on the machine sees it."""
    text = "--madengine-mongo: every user of this machine sees a password on a command line: MONGO_PASSWORD hides it"
    return [text] if _passwords(uri) else []


def _passwords(uri: str) -> list[str]:
    """As it is written, and as it is meant; a URI that nobody can read may hold one anywhere."""
    found = PARTS.fullmatch(uri)
    login = (found["login"] or "") if found else uri.partition("://")[2]
    password = login.partition(":")[2]
    return [each for each in (password, unquote_plus(password)) if each]


def _parts(text: str, where: str, found: list[Fault]) -> re.Match[str] | None:
    if not text:
        return None
    parts = PARTS.fullmatch(text)
    if parts is None:
        shown = "no URI of MongoDB" if "@" in text or ":" in text else repr(text)
        found.append(Fault(where, f"found {shown}", EXAMPLE))
    return parts


def _login(given: Mapping[str, str], parts: re.Match[str] | None, found: list[Fault]) -> tuple[str, str]:
    """User and password of the environment, as far as the URI has none of its own."""
    user, _, password = ((parts and parts["login"]) or "").partition(":")
    secret = given.get("MONGO_PASSWORD", "")
    if password or (user and not secret):
        return "", ""
    stated = unquote_plus(user) or given.get("MONGO_USER", "")
    if bool(stated) != bool(secret):
        there, lost = ("MONGO_USER", "MONGO_PASSWORD") if stated else ("MONGO_PASSWORD", "MONGO_USER")
        found.append(Fault(lost, f"is not set, but {there} is", "both of them, or none"))
    return stated, secret


def _bracketed(host: str) -> str:
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _whole(given: Mapping[str, str], name: str, default: str, most: int, found: list[Fault]) -> int:
    text = given.get(name, default)
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= most:
        return int(text)
    found.append(Fault(name, f"found {text!r}", f"a whole number from 1 to {most}"))
    return int(default)


def _tls(given: Mapping[str, str], found: list[Fault]) -> bool | None:
    text = given.get("MONGO_TLS", "").lower()
    if not text:
        return True if "MONGO_TLS_CA_FILE" in given else None
    if text not in YES + NO:
        found.append(Fault("MONGO_TLS", f"found {text!r}", "true or false"))
    return text in YES


def _file(given: Mapping[str, str], name: str, found: list[Fault]) -> Path | None:
    if name not in given:
        return None
    path = Path(given[name])
    if not path.is_file():
        found.append(Fault(name, f"{path} is no file", "a file with certificates in PEM format"))
    return path
