"""What nodes say, and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.backends.health import (
    HEADINGS,
    TABLES,
    Facts,
    Gpu,
    Node,
    Process,
    Survey,
    faults,
    gpus_of,
    leftovers,
    read,
)

WELL = Facts(over=True, disks={"/scratch": 50_000}, runtime="")
MINE = Process(12, 345, "me", own=True, job="7", command="raylet")
THEIRS = Process(13, 346, "alice", own=False, job="", command="python3")
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
PRINTED = {
    "nvidia-smi": ["memory.free [MiB], memory.total [MiB]", "81000, 81559", "[N/A], [N/A]"],
    "amd-smi": ["", "gpu,total_vram,used_vram,free_vram,total_gtt", "0,196592,283,196309,5", "1,N/A,N/A,N/A,N/A"],
    "rocm-smi": [
        "device,VRAM Total Memory (B),VRAM Total Used Memory (B)",
        "card0,68702699520,10960896",
        "",
        "card1,x,y",
    ],
    "sysfs": ["total,used", "68702699520,10960896", ","],
}


def said(host: str, *values: object) -> str:
    return "\t".join(map(str, ("preflight", host, *values)))


def of(*lines: tuple[object, ...]) -> Facts:
    return read("\n".join(said("n1", *line) for line in lines))["n1"]


def why(facts: Facts, gpus: int = 0, live: str = "") -> list[str]:
    return list(faults(facts, gpus, live.split()))


class TestReading:
    def test_everything_that_a_node_says(self) -> None:
        facts = of(
            ("begun", 2, "n[1-2]", 8),
            ("tool", "nvidia-smi", 0),
            ("gpu", "nvidia-smi", "memory.free [MiB], memory.total [MiB]"),
            ("gpu", "nvidia-smi", "81000, 81559"),
            ("process", 12, 345, "me", "own", 7, "raylet"),
            ("process", 13, 346, "alice", "", "", "python3"),
            ("disk", "/scratch", 2048),
            ("runtime", 0, "/var/lib/docker"),
            ("ended", 11),
            ("over",),
        )
        assert facts == Facts(
            over=True,
            nodes=2,
            nodelist="n[1-2]",
            given=8,
            tool="nvidia-smi",
            gpus=(Gpu(81000, 81559),),
            processes=(MINE, THEIRS),
            disks={"/scratch": 2},
            runtime="",
            ended=(11,),
        )

    @given(st.text(), st.text())
    def test_never_fails(self, one: str, other: str) -> None:
        read(one)
        read(f"preflight\t{one}\t{other}\npreflight\tn\tprocess\t{one}\npreflight\tn\tgpu\t{other}\t{one}")

    @given(st.dictionaries(WORDS, st.lists(st.integers(0, 10**12)), min_size=1), st.lists(st.text()), st.randoms())
    def test_lines_of_nodes_and_noise_may_be_mixed(
        self, ended: dict[str, list[int]], noise: list[str], random: Random
    ) -> None:
        lines = [said(host, "ended", pid) for host, pids in ended.items() for pid in pids]
        lines += [said(host, "over") for host in ended] + [f"srun: {text}" for text in noise]
        random.shuffle(lines)
        found = read("\n".join(lines))
        assert {host: sorted(facts.ended) for host, facts in found.items()} == {
            host: sorted(pids) for host, pids in ended.items()
        }
        assert all(facts.over for facts in found.values())

    @pytest.mark.parametrize(
        ("tool", "free", "total"),
        [
            ("nvidia-smi", 81000, 81559),
            ("amd-smi", 196309, 196592),
            ("rocm-smi", 65510, 65520),
            ("sysfs", 65510, 65520),
        ],
    )
    def test_gpus_of_each_tool_and_those_that_hide_their_memory(self, tool: str, free: int, total: int) -> None:
        assert list(gpus_of(tool, PRINTED[tool])) == [Gpu(free, total), Gpu(None, None)]

    @given(st.sampled_from([*TABLES, "other"]), st.lists(st.text("gpu,totalused 01\n[]-x")))
    def test_whatever_tools_print_is_no_more_gpus_than_lines(self, tool: str, lines: list[str]) -> None:
        assert len(list(gpus_of(tool, lines))) <= len(lines)

    def test_the_tool_that_lists_gpus_counts(self) -> None:
        rows = [("gpu", "rocm-smi", line) for line in PRINTED["rocm-smi"]]
        facts = of(("tool", "amd-smi", 124), ("gpu", "amd-smi", ""), ("tool", "rocm-smi", 0), *rows)
        assert (facts.tool, len(facts.gpus), facts.trouble) == ("rocm-smi", 2, "")

    @pytest.mark.parametrize(
        ("code", "text", "trouble"),
        [(6, "No devices were found", "No devices were found"), (124, "", "no answer in time"), (9, "", "exit code 9")],
    )
    def test_a_tool_that_lists_none_says_why(self, code: int, text: str, trouble: str) -> None:
        facts = of(("tool", "nvidia-smi", code), ("gpu", "nvidia-smi", text))
        assert (facts.tool, facts.gpus, facts.trouble) == ("nvidia-smi", (), trouble)


class TestFaults:
    def test_none_of_a_node_that_is_well(self) -> None:
        gpus = (Gpu(80000, 81559),) * 8
        assert why(replace(WELL, tool="nvidia-smi", gpus=gpus, given=8), gpus=8) == []

    def test_none_of_gpus_that_nothing_can_be_asked_about(self) -> None:
        assert why(replace(WELL, given=8), gpus=8) == []

    @pytest.mark.parametrize(("given", "wanted", "bad"), [(8, 0, True), (None, 1, True), (None, 0, False)])
    def test_no_tool_where_other_nodes_have_one(self, given: int | None, wanted: int, *, bad: bool) -> None:
        found = list(faults(replace(WELL, given=given), wanted, (), "amd-smi"))
        assert found == ["no GPU tool, other nodes have one (amd-smi)"] * bad

    @pytest.mark.parametrize(("given", "wanted"), [(8, 0), (None, 8), (8, 4)])
    def test_gpus_that_do_not_answer(self, given: int | None, wanted: int) -> None:
        facts = replace(WELL, tool="amd-smi", gpus=(Gpu(None, None),) * 7, given=given)
        assert why(facts, gpus=wanted) == ["7 of 8 GPUs answer"]

    def test_a_tool_that_fails(self) -> None:
        facts = replace(WELL, tool="amd-smi", trouble="no answer in time")
        assert why(facts, gpus=1) == ["0 of 1 GPUs answer (amd-smi: no answer in time)"]

    def test_memory_that_is_in_use(self) -> None:
        facts = replace(WELL, tool="t", gpus=(Gpu(10, 100), Gpu(90, 100), Gpu(89, 100), Gpu(None, 100)))
        assert why(facts) == ["memory is in use on GPU 0, 2: 10 of 100 MiB free"]

    def test_processes_of_no_job_that_is_there(self) -> None:
        facts = replace(WELL, processes=(MINE, THEIRS))
        assert why(facts, live="7") == ["process 13 (python3) of alice is there"]
        assert why(facts, live="8") == ["your process 12 (raylet) is there", "process 13 (python3) of alice is there"]

    def test_a_full_disk(self) -> None:
        assert why(replace(WELL, disks={"/a": 1023, "/b": 1024})) == ["1023 MiB free in /a"]

    def test_a_runtime_that_does_not_answer(self) -> None:
        assert why(replace(WELL, runtime="no such socket")) == ["the container runtime does not answer: no such socket"]

    def test_a_node_that_says_nothing(self) -> None:
        assert why(Facts(), gpus=8) == ["it did not finish its checks in time"]


class TestLeftovers:
    def test_are_this_users_and_of_no_job_that_is_there(self) -> None:
        free = replace(MINE, pid=14, job="")
        facts = replace(WELL, processes=(MINE, THEIRS, free))
        assert leftovers(facts, {"7"}, root=False) == [free]
        assert leftovers(facts, set(), root=False) == [MINE, free]

    def test_of_root_came_from_a_job(self) -> None:
        facts = replace(WELL, processes=(MINE, replace(MINE, pid=14, job="")))
        assert leftovers(facts, set(), root=True) == [MINE]

    def test_can_be_told_from_later_processes_of_the_same_number(self) -> None:
        assert leftovers(replace(WELL, processes=(replace(MINE, started=0),)), set(), root=False) == []


NODES = (
    Node("n1", "idle", features=frozenset({"big", "ib"})),
    Node("n2", "idle", features=frozenset({"big"})),
    Node("n3", "mixed"),
    Node("n4", "drained*", reason="fan"),
    Node("n5", "idle~"),
)


class TestSurvey:
    def test_shows_every_node_in_one_line(self) -> None:
        facts = replace(WELL, tool="amd-smi", gpus=(Gpu(90, 100), Gpu(95, 100)), processes=(THEIRS,))
        rows = Survey(NODES, {"n1": facts, "n2": Facts(runtime="x")}, {"n2": "a; b"}).rows()
        assert {len(cells) for cells, _ in rows} == {len(HEADINGS)}
        assert [(cells[0], cells[-1], good) for cells, good in rows] == [
            ("n1", "good", True),
            ("n2", "a; b", False),
            ("n3", "busy, not checked", True),
            ("n4", "drained*: fan", False),
            ("n5", "idle~, not checked", True),
        ]
        assert rows[0][0][1:6] == ("2 (amd-smi)", "90 of 100 MiB", "48.8 GiB in /scratch", "answers", "1")
        assert rows[1][0][1:6] == ("no tool", "-", "-", "silent", "0")

    def test_says_where_nothing_can_be_said_of_gpus(self) -> None:
        survey = Survey(NODES[:1], {"n1": WELL})
        assert [(cells[-1], good) for cells, good in survey.rows()] == [("GPUs not checked", True)]
        assert survey.good

    def test_is_good_if_something_was_checked_and_all_is_well(self) -> None:
        survey = Survey(NODES[:3], {"n1": WELL})
        assert survey.good
        assert not replace(survey, facts={}).good
        assert not replace(survey, nodes=NODES).good
        assert not replace(survey, bad={"n1": "x"}).good

    def test_what_is_left_for_a_job(self) -> None:
        survey = Survey(NODES, bad={"n1": "x"})
        assert survey.left() == ["n2", "n3", "n5"]
        assert survey.left(["big"]) == ["n2"]
        assert survey.left(["big", "ib"]) == []

    def test_notes_say_what_people_should_know(self) -> None:
        assert Survey(NODES, {"n1": WELL}).notes() == []
        assert Survey(NODES, bad={"n1": "x"}, ended=("n2: y",), warning="z").notes() == [
            "node check: n1 is not clean: x",
            "node check: ended on n2: y",
            "node check: z",
        ]
