from __future__ import annotations

from pathlib import Path
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.reporting.mongosettings import of_environment, warnings
from pytest_madengine.secrets import MASK

LOGIN = {"MONGO_USER": "ann", "MONGO_PASSWORD": "p:/@%word"}


def faults(environ: dict[str, str], uri: str = "") -> list[str]:
    with pytest.raises(FaultsError) as caught:
        of_environment(environ, uri)
    return str(caught.value).splitlines()


def test_without_a_word_it_is_this_machine() -> None:
    server = of_environment({})
    assert (server.uri, server.hosts, server.timeout) == ("mongodb://localhost:27017/", "localhost:27017", 5000)
    assert (server.username, server.auth_source, server.tls, server.ca_file) == ("", "", None, None)
    assert (server.database, server.collection) == ("madengine", "results")


def test_host_port_and_timeout_are_variables() -> None:
    server = of_environment({"MONGO_HOST": "db.example.com", "MONGO_PORT": "27018", "MONGO_TIMEOUT_MS": "100"})
    assert (server.hosts, server.timeout) == ("db.example.com:27018", 100)
    assert of_environment({"MONGO_HOST": "::1"}).hosts == "[::1]:27017"


def test_a_login_is_known_by_admin_unless_it_is_said_otherwise() -> None:
    server = of_environment(LOGIN)
    assert (server.username, server.password, server.auth_source) == ("ann", "p:/@%word", "admin")
    assert of_environment({**LOGIN, "MONGO_AUTH_SOURCE": "people"}).auth_source == "people"
    stated = of_environment({**LOGIN, "MONGO_URI": "mongodb://h/db?authSource=people"})
    assert stated.auth_source == ""


def test_a_uri_names_server_and_database_and_its_login_goes_first() -> None:
    server = of_environment(
        {**LOGIN, "MONGO_URI": "mongodb://bob:secret@h1:1,h2:2/bench?replicaSet=r", "MONGO_HOST": "x"}
    )
    assert (server.hosts, server.database, server.username, server.password) == ("h1:1,h2:2", "bench", "", "")
    assert server.auth_source == ""


def test_a_given_uri_goes_before_that_of_the_environment() -> None:
    server = of_environment(
        {"MONGO_URI": "mongodb://one/a", "MONGO_DATABASE": "b", "MONGO_COLLECTION": "c"}, "mongodb://two"
    )
    assert (server.hosts, server.database, server.collection) == ("two", "b", "c")


def test_the_password_may_stand_beside_a_uri_that_names_the_user() -> None:
    server = of_environment({"MONGO_URI": "mongodb://a%40b@h/", "MONGO_PASSWORD": "p@ss"})
    assert (server.username, server.password) == ("a@b", "p@ss")
    assert of_environment({"MONGO_URI": "mongodb://CN=x@h/?authMechanism=MONGODB-X509"}).username == ""


def test_a_ca_file_means_tls(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.touch()
    server = of_environment({"MONGO_TLS_CA_FILE": str(ca_file)})
    assert (server.tls, server.ca_file) == (True, ca_file)
    assert [of_environment({"MONGO_TLS": text}).tls for text in ("true", "1", "no", "")] == [True, True, False, None]


def test_all_that_is_wrong_is_said_at_once() -> None:
    environ = {
        "MONGO_PORT": "0x1",
        "MONGO_TIMEOUT_MS": "-5",
        "MONGO_PASSWORD": "hidden-word",
        "MONGO_TLS": "maybe",
        "MONGO_TLS_CA_FILE": "/no/such/file",
    }
    assert faults(environ) == [
        "MONGO_PORT: found '0x1'; valid: a whole number from 1 to 65535",
        "MONGO_TIMEOUT_MS: found '-5'; valid: a whole number from 1 to 3600000",
        "MONGO_USER: is not set, but MONGO_PASSWORD is; valid: both of them, or none",
        "MONGO_TLS: found 'maybe'; valid: true or false",
        "MONGO_TLS_CA_FILE: /no/such/file is no file; valid: a file with certificates in PEM format",
    ]


@pytest.mark.parametrize(("uri", "shown"), [("localhost", "'localhost'"), ("ann:hunter22@h/db", "no URI of MongoDB")])
def test_what_is_no_uri_is_shown_only_where_it_holds_no_password(uri: str, shown: str) -> None:
    (fault,) = faults({}, uri)
    assert fault.startswith(f"--madengine-mongo: found {shown}; valid: mongodb://user@host:27017/database")
    (fault,) = faults({"MONGO_URI": uri})
    assert fault.startswith(f"MONGO_URI: found {shown}")


@given(st.text(min_size=6).filter(str.strip))
def test_a_password_is_never_shown(password: str) -> None:
    server = of_environment({"MONGO_URI": f"mongodb://ann:{quote_plus(password, errors='replace')}@h/"})
    assert repr(server).count(MASK) >= 1
    assert quote_plus(password, errors="replace") not in repr(server)
    mask = server.mask
    if len(password.strip()) == len(password) and password.isascii() and password.isprintable():
        assert password not in mask(f"wrong: {password}!")


def test_a_password_on_the_command_line_is_warned_of() -> None:
    (text,) = warnings("mongodb://ann:hunter22@h/")
    assert "hunter22" not in text
    assert warnings("mongodb://ann@h/") == warnings("environment") == warnings("") == []
