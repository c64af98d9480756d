from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pytest_madengine.context.context import validated
from pytest_madengine.context.slurm import ALLOWED, GPUS, REFUSED, VALID_HOSTS, Slurm, directive, seconds_of
from pytest_madengine.errors import FaultsError
from pytest_madengine.validation import dotted
from tests.engines.cluster import Cluster

TIMES = "'HH:MM:SS', 'D-HH:MM:SS' (in quotes) or minutes as a whole number from 0 (no limit) below 3600"
OPTION = "one line of text, a whole number, a list of them, true (no value) or false (left out)"
SHELL = "shell commands as a text or a list of lines, without control characters but tabs"
LINE = "one line of text without control characters"
LONG = "the long name of an option of sbatch, without dashes before it"

RCCL = {"partition": "amd-rccl"}
CHECKED = {"enable_node_check": True, "auto_cleanup_nodes": False, "verbose_node_check": False}
WIDE = {**RCCL, "nodes": 2, "gpus_per_node": 8, "time": "24:00:00", "output_dir": "./slurm_output", "exclusive": True}
EXAMPLES = {
    "wiki: single node": {"partition": "gpu", "nodes": 1, "gpus_per_node": 8, "time": "12:00:00"},
    "wiki: reservation": {"partition": "gpu", "nodes": 8, "time": "48:00:00", "reservation": "ml-training"},
    "wiki: recipe with interface": {
        "partition": "amd-gpu",
        "nodes": 4,
        "gpus_per_node": 8,
        "time": "24:00:00",
        "exclusive": True,
        "reservation": "ml-training-q1",
        "network_interface": "ib0",
    },
    "wiki: defaults": {"nodes": 1, "gpus_per_node": 8, "time": "24:00:00", "exclusive": True, "modules": []},
    "docs: full": {
        "partition": "gpu",
        "account": "research_group",
        "qos": "normal",
        "gpus_per_node": 8,
        "nodes": 2,
        "nodelist": "node01,node02",
        "time": "24:00:00",
        "mem": "64G",
        "mail_user": "user@example.com",
        "mail_type": "ALL",
    },
    "minimal/torchrun-single-gpu": {**RCCL, "nodes": 1, "gpus_per_node": 1, "time": "01:00:00"},
    "minimal/torchtitan-multi-node": {
        **RCCL,
        "nodes": 4,
        "gpus_per_node": 8,
        "time": "72:00:00",
        "mem": "512G",
        "constraint": "MI300X",
    },
    "minimal/slurm-multi": {"partition": "gpu", "nodes": 3, "gpus_per_node": 8, "time": "04:00:00", "exclusive": True},
    "basic/01-single-node-single-gpu": {**WIDE, "nodes": 1, "gpus_per_node": 1, "exclusive": False},
    "basic/03-multi-node-basic-nodelist": {**WIDE, "nodelist": "node01,node02", "network_interface": "eth0"},
    "basic/04-multi-node-advanced": {
        **WIDE,
        "nodes": 4,
        "time": "48:00:00",
        "results_dir": "/shared/results",
        "shared_workspace": "/shared/workspace",
        "qos": "high",
        "account": "research-project",
        "network_interface": "ib0",
        "modules": ["rocm/5.7.0", "gcc/11.2.0", "openmpi/4.1.4"],
    },
    "basic/06-vllm-multi-node": {**WIDE, "time": "00:45:00", "_comment_node_check": "why", **CHECKED},
    "basic/09-megatron-lm-multi-node": {"partition": "gpu", "account": "research", "nodes": 4, "mem": "256G"},
    "basic/cluster-amd-rccl": {**WIDE, "account": "amd-rccl", "qos": "normal", "nodes": 1},
    "basic/sglang-disagg-custom-split": {**WIDE, "nodes": 7, "time": "04:00:00"},
}


def faults(**values: Any) -> list[str]:
    with pytest.raises(FaultsError) as caught:
        validated({"slurm": values}, dotted, set)
    return str(caught.value).splitlines()


def fault(**values: Any) -> str:
    (only,) = faults(**values)
    return only


def words_of_sbatch(line: str) -> Iterator[str]:
    """The words that sbatch finds in a line behind `#SBATCH`: opt.c's get_argument, as 22.05 behaves."""
    rest = line.removeprefix("#SBATCH")
    while rest := rest.lstrip(" \t\n\v\f\r"):
        word, quote, at = "", "", 0
        while at < len(rest) and (quote or rest[at] not in " \t\n\v\f\r"):
            if rest[at] == "\\":
                at += 1
                word += rest[at : at + 1]
            elif quote and rest[at] == quote:
                quote = ""
            elif not quote and rest[at] == "#":
                break
            elif not quote and rest[at] in "\"'":
                quote = rest[at]
            else:
                word += rest[at]
            at += 1
        assert not quote, f"an open quote: {line}"
        if not word:
            return
        yield word
        rest = rest[at:]


@pytest.mark.parametrize("section", EXAMPLES.values(), ids=EXAMPLES)
def test_the_documented_examples_are_accepted(section: dict[str, Any]) -> None:
    stated = {key: value for key, value in section.items() if key in Slurm.model_fields}
    read = Slurm.model_validate(section).model_dump(mode="json")
    assert {key: read[key] for key in stated} == stated


def test_an_empty_section_asks_for_one_node_and_nothing_else() -> None:
    assert Slurm().sbatch_options() == [("nodes", "1")]
    assert (Slurm().seconds, Slurm().container_runtime, Slurm().enable_node_check) == (None, "docker", True)


def test_the_documented_keys_that_nobody_read_reach_sbatch() -> None:
    read = Slurm.model_validate({"mem": 64, "mail_type": ["BEGIN", "END"], "mail_user": "a@b", "options": {"nice": 5}})
    assert read.sbatch_options() == [
        ("nodes", "1"),
        ("mail-type", "BEGIN,END"),
        ("mail-user", "a@b"),
        ("mem", "64"),
        ("nice", "5"),
    ]
    assert Slurm.model_validate({"mem": None}).options == {}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"nodes": 0}, "slurm.nodes: found 0; valid: greater than or equal to 1"),
        ({"nodes": "two"}, "slurm.nodes: found 'two'; valid: a whole number"),
        ({"gpus_per_node": -1}, "slurm.gpus_per_node: found -1; valid: greater than or equal to 0"),
        ({"time": "24:00"}, f"slurm.time: found '24:00'; valid: {TIMES}"),
        ({"time": "1:60:00"}, f"slurm.time: found '1:60:00'; valid: {TIMES}"),
        ({"time": "1-24:00:00"}, f"slurm.time: found '1-24:00:00'; valid: {TIMES}"),
        ({"time": 86400}, f"slurm.time: found 86400; valid: {TIMES}"),
        ({"time": -1}, f"slurm.time: found -1; valid: {TIMES}"),
        ({"time": 1.5}, f"slurm.time: found 1.5; valid: {TIMES}"),
        ({"time": True}, f"slurm.time: found True; valid: {TIMES}"),
        ({"exclusive": "user"}, "slurm.exclusive: found 'user'; valid: true or false"),
        ({"nodelist": "n1;n2"}, f"slurm.nodelist: found 'n1;n2'; valid: {VALID_HOSTS}"),
        ({"nodelist": "n1 n2"}, f"slurm.nodelist: found 'n1 n2'; valid: {VALID_HOSTS}"),
        ({"nodelist": "/etc/nodes"}, f"slurm.nodelist: found '/etc/nodes'; valid: {VALID_HOSTS}"),
        ({"nodelist": "n[1-2"}, f"slurm.nodelist: found 'n[1-2'; valid: {VALID_HOSTS}"),
        ({"nodelist": {"n": 1}}, f"slurm.nodelist: found {{'n': 1}}; valid: {VALID_HOSTS}"),
        ({"exclude": ["n1", 2]}, f"slurm.exclude: found ['n1', 2]; valid: {VALID_HOSTS}"),
        ({"exclude": "n1,,n2"}, f"slurm.exclude: found 'n1,,n2'; valid: {VALID_HOSTS}"),
        ({"partition": "gpu\n#SBATCH -A x"}, f"slurm.partition: found 'gpu\\n#SBATCH -A x'; valid: {LINE}"),
        ({"qos": "a\0b"}, f"slurm.qos: found 'a\\x00b'; valid: {LINE}"),
        ({"output_dir": "a\rb"}, f"slurm.output_dir: found 'a\\rb'; valid: {LINE}"),
        ({"account": "\ud800"}, f"slurm.account: found '\\ud800'; valid: {LINE}"),
        ({"modules": ["a\nb"]}, f"slurm.modules: found ['a\\nb']; valid: {LINE}"),
        ({"modules": 1}, "slurm.modules: found 1; valid: a list"),
        ({"reservation": 5}, "slurm.reservation: found 5; valid: a string"),
        ({"prologue": ["a", 1]}, f"slurm.prologue: found ['a', 1]; valid: {SHELL}"),
        ({"epilogue": "a\0"}, f"slurm.epilogue: found 'a\\x00'; valid: {SHELL}"),
        (
            {"container_runtime": "lxc"},
            "slurm.container_runtime: found 'lxc'; valid: 'docker', 'podman', 'apptainer', 'enroot' or 'none'",
        ),
        ({"in_allocation": "x"}, "slurm.in_allocation: found 'x'; valid: 'steps' or 'submit'"),
        ({"options": "nice"}, "slurm.options: found 'nice'; valid: an object"),
        ({"options": {"nice": 1.5}}, f"slurm.options.nice: found 1.5; valid: {OPTION}"),
        ({"options": {"nice": None}}, f"slurm.options.nice: found None; valid: {OPTION}"),
        ({"options": {"nice": []}}, f"slurm.options.nice: found []; valid: {OPTION}"),
        ({"options": {"licenses": ["a", "b\nc"]}}, f"slurm.options.licenses: found ['a', 'b\\nc']; valid: {OPTION}"),
        ({"options": {"--mem": "1G"}}, f"slurm.options.--mem: found '--mem'; valid: {LONG}"),
        ({"options": {"cpus_per_task": 1}}, f"slurm.options.cpus_per_task: found 'cpus_per_task'; valid: {LONG}"),
        ({"options": {"J": "x"}}, f"slurm.options.J: found 'J'; valid: {LONG}"),
        (
            {"options": {"job-name": "x"}},
            "slurm.options.job-name: found 'job-name'; valid: any other option: jobs are found again by it",
        ),
        (
            {"options": {"qos": "x"}},
            "slurm.options.qos: found 'qos'; valid: any other option: slurm.qos says it",
        ),
        (
            {"options": {"outp": "x"}},
            "slurm.options.outp: found 'outp'; valid: any other option: sbatch takes it for output: "
            "what a job prints is looked for in its own folder",
        ),
        (
            {"options": {"gpus-per-node": 4}},
            "slurm.options: found {'gpus-per-node': 4}; valid: gpus-per-node as false alone, to leave it out; "
            "slurm.gpus_per_node says it else",
        ),
        (
            {"partition": "a", "partitions": ["b"]},
            "slurm: found {'partition': 'a', 'partitions': ['b']}; valid: either 'partition', "
            "or 'partitions' to run each model in each of them",
        ),
    ],
)
def test_a_wrong_value_says_where_what_and_what_would_be_valid(values: dict[str, Any], text: str) -> None:
    assert fault(**values) == text


def test_every_fault_is_reported_at_once() -> None:
    found = faults(nodes=0, tiem="1:00:00", options={"wrap": "x", "nice": 1.5}, nodelist="a b;c")
    assert sorted(text.partition(": ")[0] for text in found) == [
        "slurm.nodelist",
        "slurm.nodes",
        "slurm.options.nice",
        "slurm.options.wrap",
        "slurm.tiem",
    ]


@pytest.mark.parametrize(
    ("key", "close"),
    [
        ("partion", "partition"),
        ("node", "nodes"),
        ("gpu_per_node", "gpus_per_node"),
        ("container_engine", "container_runtime"),
    ],
)
def test_a_misspelt_key_is_told_the_nearest_one(key: str, close: str) -> None:
    assert fault(**{key: "x"}).endswith(f"did you mean {close!r}?")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_ours_to_say_is_refused_however_it_is_shortened(name: str) -> None:
    for end in range(2, len(name) + 1):
        if name[:end] not in ALLOWED and not name[:end].endswith("-"):
            with pytest.raises(ValidationError, match="any other option"):
                Slurm(options={name[:end]: "x"})


@pytest.mark.parametrize("name", ["dependency", "mem-per-cpu", "wait-all-nodes", "time-min", "gpus", "signal", "hold"])
def test_other_options_are_the_users(name: str) -> None:
    assert (name, "x") in Slurm(options={name: "x"}).sbatch_options()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("24:00:00", 86400),
        ("00:45:00", 2700),
        ("1:02:03", 3723),
        ("72:00:00", 259200),
        ("1-00:00:00", 86400),
        ("2-12", 216000),
        ("2-12:30", 217800),
        (" 0-0:00:00 ", None),
        (90, 5400),
        ("90", 5400),
        (0, None),
        ("00:00:00", None),
        (None, None),
    ],
)
def test_a_time_is_read_as_sbatch_reads_it(time: object, seconds: int | None) -> None:
    assert Slurm.model_validate({"time": time}).seconds == seconds


@given(st.integers(0, 9999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_any_length_can_be_written_in_each_form(days: int, hours: int, minutes: int, seconds: int) -> None:
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert seconds_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == whole
    assert seconds_of(f"{days}-{hours}:{minutes:02}") == whole - seconds
    assert seconds_of(f"{days}-{hours}") == whole - seconds - 60 * minutes
    assert seconds_of(f"{days}:{minutes:02}:{seconds:02}") == days * 3600 + 60 * minutes + seconds
    assert seconds_of(str(days)) == 60 * days


@given(st.text(alphabet="0123456789:-² +", max_size=12) | st.text())
def test_a_time_is_a_number_or_refused_in_words(text: str) -> None:
    try:
        assert seconds_of(text) >= 0
    except ValueError as error:
        assert str(error) == TIMES  # noqa: PT017  # not every text is refused


@given(st.integers() | st.booleans())
def test_minutes_are_taken_up_to_where_yaml_makes_numbers_of_clock_times(minutes: int) -> None:
    if not isinstance(minutes, bool) and 0 <= minutes < 3600:
        assert Slurm.model_validate({"time": minutes}).seconds == (60 * minutes or None)
    else:
        with pytest.raises(ValidationError):
            Slurm.model_validate({"time": minutes})


@pytest.mark.parametrize(
    ("stated", "hosts"),
    [
        ("node01, node02", "node01,node02"),
        (["node01", " node02 ", ""], "node01,node02"),
        ("node[01-04, 07],login", "node[01-04,07],login"),
        (["gpu[1-2]-ib[0,3]", "a.b-c_d"], "gpu[1-2]-ib[0,3],a.b-c_d"),
        ("", ""),
        ([], ""),
    ],
)
def test_node_names_keep_slurms_brackets_and_lose_blanks(stated: object, hosts: str) -> None:
    read = Slurm.model_validate({"nodelist": stated, "exclude": stated})
    assert (read.nodelist, read.exclude) == (hosts, hosts)
    assert Slurm.model_validate({"nodelist": None}).nodelist is None


def test_options_come_in_a_fixed_order() -> None:
    stated = {
        "account": "a",
        "qos": "q",
        "reservation": "r",
        "constraint": "x&y",
        "exclude": "n3",
        "nodelist": "n[1-2]",
        "exclusive": True,
        "time": "1:00:00",
        "gpus_per_node": 8,
        "nodes": 2,
        "partition": "p",
        "modules": ["m"],
        "options": {"nice": 5, "contiguous": True, "licenses": ["a:1", "b"], "spread-job": False},
    }
    assert Slurm.model_validate(stated).sbatch_options() == [
        ("partition", "p"),
        ("nodes", "2"),
        ("gpus-per-node", "8"),
        ("time", "1:00:00"),
        ("exclusive", None),
        ("nodelist", "n[1-2]"),
        ("exclude", "n3"),
        ("constraint", "x&y"),
        ("reservation", "r"),
        ("qos", "q"),
        ("account", "a"),
        ("contiguous", None),
        ("licenses", "a:1,b"),
        ("nice", "5"),
    ]


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, "8"),
        ({"gres": "tmpfs:10G"}, "8"),
        ({"gres": "gpu:mi300:8"}, None),
        ({"gpus": 16}, None),
        ({"gpus-per-task": 1}, None),
        ({"gpus-per-task": False}, "8"),
        ({GPUS: False}, None),
    ],
)
def test_gpus_are_asked_for_once_in_the_words_that_the_cluster_knows(options: object, asked: str | None) -> None:
    read = Slurm.model_validate({"gpus_per_node": 8, "options": options})
    assert dict(read.sbatch_options()).get(GPUS) == asked
    assert read.gpus_per_node == 8


def test_nodes_to_avoid_are_excluded_unless_the_job_is_pinned() -> None:
    assert ("exclude", "n1,n2") in Slurm(exclude="n1").sbatch_options(avoid=["n2"])
    assert ("exclude", "n2,n3") in Slurm().sbatch_options(avoid=["n2", "n3"])
    assert ("exclude", "n1") in Slurm(exclude="n1", nodelist="n2").sbatch_options(avoid=["n2"])


def test_a_matrix_of_partitions_gives_one_section_each() -> None:
    matrix = Slurm.model_validate({"partitions": "a, b,a", "nodes": 2})
    assert matrix.variants() == (Slurm(partition="a", nodes=2), Slurm(partition="b", nodes=2))
    assert Slurm(partition="a").variants() == (Slurm(partition="a"),)
    with pytest.raises(ValueError, match="one of the variants"):
        matrix.sbatch_options()


def test_shell_text_is_kept_as_it_is_but_for_ends_of_lines() -> None:
    read = Slurm.model_validate({"prologue": ["export A='x y'", "\tulimit -l"], "epilogue": "a\r\nb\n"})
    assert (read.prologue, read.epilogue) == ("export A='x y'\n\tulimit -l", "a\nb\n")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("exclusive", None, "#SBATCH --exclusive"),
        ("nodes", "4", "#SBATCH --nodes=4"),
        ("nodelist", "n[1-4],m7", "#SBATCH --nodelist=n[1-4],m7"),
        ("comment", "a b", '#SBATCH --comment="a b"'),
        ("comment", r"a\"#", r'#SBATCH --comment="a\\\"#"'),
        ("comment", "", '#SBATCH --comment=""'),
    ],
)
def test_a_value_is_quoted_where_it_must_be(name: str, value: str | None, line: str) -> None:
    assert directive(name, value) == line


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\r", "\ud800", "\u2028"])
def test_a_value_that_no_line_can_hold_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        directive("comment", value)


VALUES = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.isprintable) | st.text(
    "ab \\\"'#:$`=,", min_size=1
)


@given(VALUES)
def test_sbatch_reads_any_value_as_it_was_stated(value: str) -> None:
    assert list(words_of_sbatch(directive("comment", value))) == [f"--comment={value}"]


@given(st.dictionaries(st.sampled_from(["partition", "constraint", "qos", "account", "reservation"]), VALUES))
def test_whatever_a_section_accepts_reaches_sbatch(stated: dict[str, str]) -> None:
    read = Slurm.model_validate(stated).sbatch_options()
    words = [word for option in read for word in words_of_sbatch(directive(*option))]
    wanted = {key: value.strip(" ") for key, value in stated.items()}
    assert set(words) == {"--nodes=1", *(f"--{key}={value}" for key, value in wanted.items() if value)}


@given(st.dictionaries(st.sampled_from(sorted(Slurm.model_fields)), st.text() | st.integers() | st.none()))
def test_a_section_is_typed_or_refused_and_what_it_was_given_makes_it_again(stated: dict[str, Any]) -> None:
    try:
        read = Slurm.model_validate(stated)
    except ValidationError:
        return
    assert Slurm.model_validate(read.model_dump(mode="json", exclude_unset=True)) == read


@pytest.mark.requires_slurm
@pytest.mark.parametrize("value", ["a\\b 'c' \"d\" # e", ": $HOME `id` $(id)", "é☃=,;|&*", "a\\", "'"])
def test_the_real_sbatch_reads_values_so(slurm_cluster: Cluster, value: str) -> None:
    script = "\n".join(["#!/bin/sh", directive("hold"), directive("comment", value), directive("job-name", "x y"), ""])
    number = command("sbatch", "--parsable", text=script)
    try:
        assert command("squeue", "--noheader", f"--jobs={number}", "--format=%j|%k") == f"x y|{value}"
    finally:
        command("scancel", number)


def command(*argv: str, text: str = "") -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(argv)}: {done.stderr}"
    return done.stdout.strip()
