#!/usr/bin/env python3
"""Stands in for torchrun and deepspeed: called by their names, with options that we use.

Starts the processes of one node. Before its script each meets all others at the master, rank 0, as trainers do.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from pathlib import Path

PATIENCE = 60.0
"""Seconds."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--standalone", action="store_true")
    parser.add_argument("--no_ssh", action="store_true")
    parser.add_argument("--nnodes", type=int, default=1)
    parser.add_argument("--nproc_per_node", "--num_gpus", type=int, default=1)
    parser.add_argument("--node_rank", type=int, default=0)
    parser.add_argument("--master_addr", default="127.0.0.1")
    parser.add_argument("--master_port", type=int, default=0)
    parser.add_argument("--hostfile", type=Path)
    parser.add_argument("script")
    parser.add_argument("args", nargs=argparse.REMAINDER)
    return parser.parse_args()


def read_hosts(given: argparse.Namespace) -> None:
    """The numbers of nodes and processes, as the hostfile says them: `node1 slots=2`."""
    lines = given.hostfile.read_text(encoding="utf-8").split("\n")[:-1]
    given.nnodes, given.nproc_per_node = len(lines), int(lines[0].partition(" slots=")[2])
    if not given.no_ssh or lines[0].split()[0] != given.master_addr:
        sys.exit(f"{lines} and {vars(given)}: each node is to start its own, the first is the master")


def meet(given: argparse.Namespace, rank: int, world: int) -> list[int]:
    """The ranks that the master has heard of when all have come."""
    if rank:
        return arrive((given.master_addr, given.master_port), rank)
    with socket.create_server((given.master_addr, given.master_port)) as server:
        server.settimeout(PATIENCE)
        others = [server.accept()[0] for _ in range(world - 1)]
    ranks = [0, *(int(other.recv(16)) for other in others)]
    for other in others:
        other.sendall(" ".join(map(str, ranks)).encode())
        other.close()
    return ranks


def arrive(master: tuple[str, int], rank: int) -> list[int]:
    connection, deadline = socket.socket(), time.monotonic() + PATIENCE
    while connection.connect_ex(master):
        if time.monotonic() > deadline:
            sys.exit(f"nobody listens at {master}")
        connection.close()
        time.sleep(0.05)
        connection = socket.socket()
    with connection:
        connection.settimeout(PATIENCE)
        connection.sendall(str(rank).encode())
        return list(map(int, connection.recv(4096).split()))


def process(given: argparse.Namespace, local: int) -> None:
    rank, world = given.node_rank * given.nproc_per_node + local, given.nnodes * given.nproc_per_node
    met = "alone" if given.nnodes == 1 else ",".join(map(str, sorted(meet(given, rank, world))))
    own = {"RANK": rank, "LOCAL_RANK": local, "WORLD_SIZE": world, "MET": met}
    os.environ.update({name: str(value) for name, value in own.items()})
    os.execvp("bash", ["bash", given.script, *given.args])  # noqa: S606  # the script of the test


def main() -> int:
    given = options()
    if given.hostfile:
        read_hosts(given)
    children = []
    for local in range(given.nproc_per_node):
        child = os.fork()
        if not child:
            process(given, local)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main())
