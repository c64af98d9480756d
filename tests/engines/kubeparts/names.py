"""The cluster's DNS: pods and services by name, as far as Endpoints tell of them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from tests.engines.kubeparts.api import Key, Mirror, Object

SUFFIX = ".svc.cluster.local"
A_RECORD = 1
NO_SUCH_NAME = 3
LONGEST = 2
MOST = 25
"""Addresses that one answer has room for."""


def addresses(name: str, endpoints: Mapping[Key, Object]) -> list[str] | None:
    """The addresses of `SERVICE.NAMESPACE.svc.cluster.local` or of a pod, `POD.SERVICE...`; None if unknown."""
    *pod, service, namespace = ["", *name.lower().removesuffix(SUFFIX).split(".")]
    found = endpoints.get((namespace, service))
    if not name.lower().endswith(SUFFIX) or found is None or len(pod) > LONGEST:
        return None
    known = [each for subset in found.get("subsets") or [] for each in subset.get("addresses") or []]
    return [each["ip"] for each in known if pod[-1] in ("", each.get("hostname"))] or None


def answer(question: bytes, endpoints: Mapping[Key, Object]) -> bytes:
    """The packet that answers one."""
    labels, end = [], 12
    while length := question[end]:
        labels.append(question[end + 1 : end + 1 + length].decode("latin-1"))
        end += 1 + length
    (kind,) = struct.unpack_from("!H", question, end + 1)
    found = addresses(".".join(labels), endpoints)
    told = (found or [])[:MOST] if kind == A_RECORD else []
    flags = 0x8580 | (NO_SUCH_NAME if found is None else 0)
    head = question[:2] + struct.pack("!HHHHH", flags, 1, len(told), 0, 0)
    records = (struct.pack("!HHHIH", 0xC00C, A_RECORD, 1, 1, 4) + socket.inet_aton(each) for each in told)
    return head + question[12 : end + 5] + b"".join(records)


def serve(address: str, endpoints: Mirror) -> None:
    """Answer for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind((address, 53))
        while True:
            question, asker = listening.recvfrom(4096)
            listening.sendto(answer(question, endpoints.objects), asker)
