"""What a cluster's answers mean that say no."""

from __future__ import annotations

import json
import re
from http import HTTPStatus

from pytest_madengine.errors import InfrastructureError, RefusedError

FOR_GOOD = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
"""By which a cluster says no to what it will never do; a quota has room again some day."""
QUOTA = "exceeded quota"
BUSY = (HTTPStatus.TOO_MANY_REQUESTS, *(status for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR))
DENIED = re.compile(
    r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)".*?(?: in the namespace "(?P<namespace>[^"]+)")?$'
)
HANDSHAKE = re.compile(r"Handshake status (?P<status>\d+).*-\+-\+- (?P<said>.*)$", re.DOTALL)
"""What the client says of a command that could not be begun."""


class StatusError(InfrastructureError):
    """The cluster answered a request with no.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, text: str, status: int) -> None:
        self.status = status
        super().__init__(text)


class BusyError(StatusError):
    """The cluster has no time, or something in it does not answer: worth asking again."""


class DeniedError(StatusError, RefusedError):
    """The same request will never get another answer."""


class AwayError(InfrastructureError):
    """Nothing that answers was reached."""


def refusal(doing: str, status: int, body: bytes | str | None, reason: str = "") -> InfrastructureError:
    """What an answer that says no means; a status of 0 is that of a connection that broke.

    Args:
        doing: what was asked for.
        status: of HTTP.
        body: what the server says, as JSON.
        reason: what the client says.
    """
    if shaken := HANDSHAKE.search(reason):
        status, body = int(shaken["status"]), shaken["said"]
    said = brief(message(body) or reason)
    if status == 0:
        return AwayError(f"Kubernetes: cannot {doing}: {said}")
    if status in BUSY:
        return BusyError(f"Kubernetes: cannot {doing}: {said}", status)
    if status == HTTPStatus.FORBIDDEN and (denied := DENIED.search(said)):
        namespace = f" in the namespace {denied['namespace']}" if denied["namespace"] else ""
        right = f"{denied['verb']} {denied['resource']}{namespace}"
        return DeniedError(f"Kubernetes: the account lacks the right to {right} (docs/kubernetes-role.yaml)", status)
    if status == HTTPStatus.UNAUTHORIZED:
        return StatusError(f"Kubernetes: cannot {doing}: the cluster does not know who asks ({said})", status)
    kind = DeniedError if status in FOR_GOOD and QUOTA not in said else StatusError
    return kind(f"Kubernetes: cannot {doing}: {said}", status)


def message(body: bytes | str | None) -> str:
    """The words in a server's answer."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return str(found.get("message", "")) if isinstance(found, dict) else text


def brief(text: str, longest: int = 500) -> str:
    """Words in one line that is not endless."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]}..."
