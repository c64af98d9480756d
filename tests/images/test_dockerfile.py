from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine import command
from pytest_madengine.errors import FaultsError
from pytest_madengine.images import dockerfile
from pytest_madengine.images.dockerfile import base_image, declarations, declared_args, external_images

AMD = "# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}\nFROM x\n"
NVIDIA = AMD.replace("AMD", "NVIDIA")
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files of the project's docker/ folder; gives the prefix of all that are called `m…`."""

    def files(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path / "docker" / name.replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / "docker" / "m"

    return files


def of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "Dockerfile"
    path.write_text(text, encoding="utf-8")
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_prefix_stands_for_every_dockerfile_that_begins_with_it_and_a_dot(write: Write) -> None:
    prefix = write(
        m__ubuntu__amd__Dockerfile="",
        m__ctx1__ubuntu__amd__Dockerfile="",
        m__dockerfile="",
        m__txt="no Dockerfile",
        m__special="# CONTEXT {}\nFROM x",
        m_x__Dockerfile="",
        other__Dockerfile="",
    )
    assert names(dockerfile.candidates(prefix)) == [
        "m.ctx1.ubuntu.amd.Dockerfile",
        "m.dockerfile",
        "m.special",
        "m.ubuntu.amd.Dockerfile",
    ]


def test_an_ignore_file_is_no_dockerfile(write: Write) -> None:
    prefix = write(m__Dockerfile="FROM x", m__Dockerfile__dockerignore="*.log")
    assert names(dockerfile.candidates(prefix)) == ["m.Dockerfile"]
    assert dockerfile.vendors(prefix) == set()


def test_a_prefix_may_be_a_files_whole_name(write: Write) -> None:
    prefix = write(m="FROM x", m__Dockerfile="FROM y")
    assert names(dockerfile.candidates(prefix)) == ["m"]


def test_a_prefix_is_no_pattern(write: Write, tmp_path: Path) -> None:
    prefix = write(m__Dockerfile="", **{"a[1]*__Dockerfile": ""})
    assert dockerfile.candidates(prefix.with_name("*")) == []
    assert names(dockerfile.candidates(prefix.with_name("a[1]*"))) == ["a[1]*.Dockerfile"]
    assert dockerfile.candidates(tmp_path / "missing" / "m") == []


def test_folders_are_no_dockerfiles(write: Write) -> None:
    prefix = write(m__Dockerfile="")
    (prefix.parent / "m.old.Dockerfile").mkdir()
    assert names(dockerfile.candidates(prefix)) == ["m.Dockerfile"]


def test_the_context_chooses_by_header_and_not_by_name(write: Write) -> None:
    prefix = write(m__amd__Dockerfile=NVIDIA, m__nvidia__Dockerfile=AMD)
    chosen = dockerfile.matching(prefix, {"gpu_vendor": "AMD", "guest_os": "UBUNTU"})
    assert names(chosen) == ["m.nvidia.Dockerfile"]


@pytest.mark.parametrize(
    ("header", "context", "fits"),
    [
        ("{}", {"gpu_vendor": "AMD"}, True),
        ("{'gpu_vendor': 'AMD'}", {}, True),
        ("{'gpu_vendor': 'AMD', 'new': 1}", {"gpu_vendor": "AMD"}, True),
        ("{'gpu_vendor': 'AMD'}", {"gpu_vendor": "NVIDIA"}, False),
        ("{'gpu_vendor': 'AMD', 'guest_os': 'CENTOS'}", {"gpu_vendor": "AMD", "guest_os": "UBUNTU"}, False),
        ("{'ctx_test': '0'}", {"ctx_test": 0}, False),
    ],
)
def test_a_key_that_the_context_lacks_fits(write: Write, header: str, context: dict[str, Any], fits: bool) -> None:  # noqa: FBT001
    prefix = write(m__Dockerfile=f"# CONTEXT {header}\nFROM x")
    if fits:
        assert names(dockerfile.matching(prefix, context)) == ["m.Dockerfile"]
    else:
        with pytest.raises(FaultsError, match="does not fit"):
            dockerfile.matching(prefix, context)


def test_every_fitting_dockerfile_is_one_image(write: Write) -> None:
    prefix = write(m__a__Dockerfile=AMD, m__b__Dockerfile=AMD, m__c__Dockerfile="FROM x")
    assert len(dockerfile.matching(prefix, {"gpu_vendor": "AMD"})) == 3


def test_a_prefix_without_dockerfiles_is_a_users_error(write: Write) -> None:
    with pytest.raises(FaultsError, match=r"no file m\.\*; valid: a prefix of Dockerfiles"):
        dockerfile.matching(write(other__Dockerfile=""), {})


def test_none_that_fits_is_a_users_error_for_each_candidate(write: Write) -> None:
    prefix = write(m__a__Dockerfile=AMD, m__b__Dockerfile=AMD)
    with pytest.raises(FaultsError) as caught:
        dockerfile.matching(prefix, {"gpu_vendor": "NVIDIA"})
    assert [str(fault).rpartition("; ")[2] for fault in caught.value.faults] == [
        "valid: gpu_vendor='NVIDIA' is what the context says"
    ] * 2


def test_one_broken_header_is_an_error_and_drops_no_other(write: Write) -> None:
    prefix = write(m__a__Dockerfile=AMD, m__b__Dockerfile="# CONTEXT {'gpu_vendor': AMD}\nFROM x")
    with pytest.raises(FaultsError, match=r"m.b.Dockerfile:1: # CONTEXT \"\{'gpu_vendor': AMD\}\" cannot be read"):
        dockerfile.matching(prefix, {})


@pytest.mark.parametrize("text", ["['a']", "{'a'", "{[]: 1}", "{'a': open('x')}", "None", "x" * 10, "{" * 5000])
def test_a_header_that_is_no_object_is_a_users_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(FaultsError, match=r"Dockerfile:2: # CONTEXT .* cannot be read"):
        dockerfile.header(of(tmp_path, f"\n# CONTEXT {text}\nFROM x"))


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])))
def test_any_text_behind_context_is_an_object_or_a_users_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = of(tmp_path_factory.mktemp("h"), f"# CONTEXT {text}\n")
    try:
        value = dockerfile.header(path)
    except FaultsError:
        value = {}
    assert isinstance(value, dict)


@pytest.mark.parametrize(("line", "read"), [(5, {"a": 1}), (6, {})])
def test_a_header_stands_in_the_first_five_lines(tmp_path: Path, line: int, read: dict[str, int]) -> None:
    assert dockerfile.header(of(tmp_path, "\n" * (line - 1) + "# CONTEXT {'a': 1}\n")) == read


def test_a_dockerfile_without_header_fits_all(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"FROM \xff\n")
    assert dockerfile.header(tmp_path / "odd") == {}


def test_vendors_come_from_headers_else_from_names(write: Write) -> None:
    prefix = write(m__amd__Dockerfile=NVIDIA, m__ubuntu__AMD__Dockerfile="FROM x", m__Dockerfile="FROM x")
    assert dockerfile.vendors(prefix) == {"amd", "nvidia"}


@pytest.mark.parametrize(
    ("name", "header", "base", "vendor"),
    [
        ("m__Dockerfile", "", "", ""),
        ("m__Dockerfile", "", "ubuntu:22.04", ""),
        ("m__Dockerfile", "", "amd64/ubuntu", ""),
        ("m__Dockerfile", "", "rocm/pytorch:latest", "AMD"),
        ("m__Dockerfile", "", "registry.example.com/AMD/vllm", "AMD"),
        ("m__Dockerfile", "", "nvcr.io/nvidia/pytorch", "NVIDIA"),
        ("m__Dockerfile", "", "pytorch/pytorch:2.4-cuda12", "NVIDIA"),
        ("m__ubuntu__amd__Dockerfile", "", "nvidia/cuda", "AMD"),
        ("m__NVIDIA__Dockerfile", "", "rocm/dev", "NVIDIA"),
        ("m__Dockerfile", "# CONTEXT {'gpu_vendor': 'Nvidia'}\n", "rocm/dev", "NVIDIA"),
        ("m__amd__Dockerfile", "# CONTEXT {'gpu_vendor': 'NVIDIA'}\n", "rocm/dev", "NVIDIA"),
        ("m__amd__Dockerfile", "# CONTEXT {'guest_os': 'UBUNTU'}\n", "", "AMD"),
    ],
)
def test_a_vendor_comes_from_header_else_name_else_base_image(
    write: Write, name: str, header: str, base: str, vendor: str
) -> None:
    (path,) = dockerfile.candidates(write(**{name: f"{header}FROM x\n"}))
    assert dockerfile.vendor(path, base) == vendor


def test_the_keys_of_all_headers_of_a_project(write: Write) -> None:
    project = write(
        m__Dockerfile=AMD, other__Dockerfile="# CONTEXT {'flavour': 1}", x__Dockerfile="FROM x"
    ).parent.parent
    (project / "docker" / "Dockerfiles").mkdir()
    assert dockerfile.header_keys(project) == {"gpu_vendor", "guest_os", "flavour"}


IMAGES: dict[str, tuple[str, dict[str, str], list[str], str]] = {
    "plain": ("FROM a:1\n", {}, ["a:1"], "a:1"),
    "lower case": ("from a:1 as b\ncopy --from=b x y\n", {}, ["a:1"], "a:1"),
    "a default": ("ARG BASE_DOCKER=a:1\nFROM $BASE_DOCKER\n", {}, ["a:1"], "a:1"),
    "a given argument": ("ARG BASE_DOCKER=a:1\nFROM ${BASE_DOCKER}\n", {"BASE_DOCKER": "b"}, ["b"], "b"),
    "an argument of an argument": ("ARG V=2\nARG B=a:${V}\nFROM $B\n", {}, ["a:2"], "a:2"),
    "two arguments on a line": ('ARG R=r V="1"\nFROM $R/a:$V\n', {}, ["r/a:1"], "r/a:1"),
    "an inline default": ("ARG B\nFROM ${B:-a:1}\n", {}, ["a:1"], "a:1"),
    "an inline default not needed": ("ARG B=b\nFROM ${B:-a:1}\n", {}, ["b"], "b"),
    "an alternative": ("ARG G=1\nFROM a${G:+-gpu}${H:+-none}\n", {}, ["a-gpu"], "a-gpu"),
    "an unknown argument": ("ARG B\nFROM $B\n", {}, [], "$B"),
    "an argument of a stage": ("FROM a\nARG V=3\nFROM b:$V\n", {}, ["a"], "b:$V"),
    "a platform": ("FROM --platform=linux/amd64 a AS x\n", {}, ["a"], "a"),
    "stages": ("FROM a AS Build\nFROM build AS mid\nFROM mid\n", {}, ["a"], "a"),
    "a stage like its image": ("FROM golang AS golang\nFROM golang\n", {}, ["golang"], "golang"),
    "two images": ("FROM a AS x\nFROM b\nCOPY --from=x / /\n", {}, ["a", "b"], "b"),
    "a copied image": ("FROM a\nCOPY --chown=1:1 --from=img:2 /x /y\n", {}, ["a", "img:2"], "a"),
    "a stage by number": ("FROM a\nFROM b\nCOPY --from=0 /x /y\n", {}, ["a", "b"], "b"),
    "a mounted image": ("FROM a\nRUN --mount=type=bind,from=img:2,target=/x ls\n", {}, ["a", "img:2"], "a"),
    "a mounted stage": ("FROM a AS x\nFROM b\nRUN --mount=from=x,target=/x ls\n", {}, ["a", "b"], "b"),
    "an option of a program": ("FROM a\nRUN uvx --from=ruff ruff check\n", {}, ["a"], "a"),
    "the shared helpers": ("FROM a\nCOPY --from=tools x y\n", {}, ["a"], "a"),
    "nothing": ("FROM scratch\n", {}, [], "scratch"),
    "an image twice": ("FROM a\nFROM a\n", {}, ["a"], "a"),
    "a line that goes on": ("FROM \\\n  a:1 \\\n  AS z\nFROM z\n", {}, ["a:1"], "a:1"),
    "windows line ends": ("ARG B=a\r\nFROM $B AS q\r\nFROM q\r\n", {}, ["a"], "a"),
    "quotes": ('FROM "a:1"\n', {}, ["a:1"], "a:1"),
    "a broken argument": ("ARG B='a\nFROM b\n", {}, ["b"], "b"),
    "python in a here-document": ("FROM a\nRUN python3 <<EOF\nfrom torch import nn\nEOF\nRUN x\n", {}, ["a"], "a"),
    "two here-documents": ("FROM a\nCOPY <<A <<-'B' /x/\nFROM b\nA\nFROM c\n\tB\nFROM d\n", {}, ["a", "d"], "d"),
    "a here-document without end": ("FROM a\nRUN cat <<EOF\nFROM b\n", {}, ["a", "b"], "b"),
    "a shift and a here-string": ("FROM a\nRUN x=$((1<<A)); cat <<<A\nFROM b\nA\n", {}, ["a", "b"], "b"),
    "no instruction": ("# nothing\n", {}, [], ""),
    "an empty start": ("FROM\n", {}, [], ""),
}


@pytest.mark.parametrize("case", IMAGES)
def test_the_images_that_a_dockerfile_comes_from(tmp_path: Path, case: str) -> None:
    text, arguments, external, base = IMAGES[case]
    path = of(tmp_path, text)
    assert external_images(path, arguments) == external
    assert base_image(path, arguments) == base


def test_a_given_base_docker_is_the_base_whatever_the_dockerfile_says(tmp_path: Path) -> None:
    assert base_image(of(tmp_path, "FROM a\n"), {"BASE_DOCKER": "b"}) == "b"


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("ARG A\nFROM x\nARG B=1\n", {"A", "B"}),
        ('ARG A=1 B="x y" C\n', {"A", "B", "C"}),
        ("arg a\n", {"a"}),
        ("FROM x\nENV E=1\nRUN echo ARG F\n", set()),
        ("RUN <<EOF\nARG G\nEOF\n", set()),
    ],
)
def test_the_arguments_that_a_dockerfile_declares(tmp_path: Path, text: str, declared: set[str]) -> None:
    assert declared_args(of(tmp_path, text)) == declared


DECLARED: dict[str, tuple[str, dict[str, str], list[tuple[int, str, str, str | None]]]] = {
    "nothing": ("FROM x\nRUN y\n", {}, []),
    "no default": ("FROM x\nARG A\n", {}, [(2, "ARG", "A", None)]),
    "a given argument": (
        "FROM x\nARG A\nARG B=1\n",
        {"A": "2", "B": "3"},
        [(2, "ARG", "A", "2"), (3, "ARG", "B", "3")],
    ),
    "an argument that nobody declares": ("FROM x\nENV B=$A\n", {"A": "2"}, [(2, "ENV", "B", "$A")]),
    "an empty default": ("FROM x\nARG A=\n", {}, [(2, "ARG", "A", "")]),
    "several": (
        "FROM x\nARG A=1 B C='x y'\n",
        {},
        [(2, "ARG", "A", "1"), (2, "ARG", "B", None), (2, "ARG", "C", "x y")],
    ),
    "the old form": ("FROM x\nENV A b  c=d\n", {}, [(2, "ENV", "A", "b  c=d")]),
    "the old form of a variable": ("FROM x\nARG A=1\nENV B v$A\n", {}, [(2, "ARG", "A", "1"), (3, "ENV", "B", "v1")]),
    "no name": ("FROM x\nENV\nARG\n", {}, []),
    "lower case": ("from x\nenv A=1\n", {}, [(2, "ENV", "A", "1")]),
    "lines that go on": (
        "FROM x\n# c\nENV A=1 \\\n  # c\n  B=2\nARG C=3\n",
        {},
        [(3, "ENV", "A", "1"), (3, "ENV", "B", "2"), (6, "ARG", "C", "3")],
    ),
    "behind a here-document": ("FROM x\nRUN <<E\nENV A=1\nE\n\nENV B=2\n", {}, [(6, "ENV", "B", "2")]),
    "unknown variables": ("FROM x\nENV A=a;$B C=${B}\n", {}, [(2, "ENV", "A", "a;$B"), (2, "ENV", "C", "${B}")]),
    "an inline default": ("FROM x\nENV A=${B:-c}\n", {}, [(2, "ENV", "A", "c")]),
    "an earlier variable": ("FROM x\nENV A=1\nENV B=${A}2\n", {}, [(2, "ENV", "A", "1"), (3, "ENV", "B", "12")]),
    "of before": ("ARG A=1\nFROM x\nENV B=$A\n", {}, [(1, "ARG", "A", "1"), (3, "ENV", "B", "$A")]),
    "of before, declared again": ("ARG A=1\nFROM x\nARG A\n", {}, [(1, "ARG", "A", "1"), (3, "ARG", "A", "1")]),
    "a value of another stage": (
        "FROM x AS s\nARG A=1\nFROM y\nENV B=$A\n",
        {},
        [(2, "ARG", "A", "1"), (4, "ENV", "B", "$A")],
    ),
    "a stage made of another": (
        "FROM x AS S\nARG A=1\nENV B=2\nFROM s\nENV C=$A$B\n",
        {},
        [(2, "ARG", "A", "1"), (3, "ENV", "B", "2"), (5, "ENV", "C", "12")],
    ),
}


@pytest.mark.parametrize("case", DECLARED)
def test_variables_are_declared_with_line_and_value(tmp_path: Path, case: str) -> None:
    text, arguments, expected = DECLARED[case]
    assert declarations(of(tmp_path, text), arguments) == expected


SCOPES = """ARG G=global H=$G-too
FROM madengine-test-base:latest AS one
ENV X=env
ARG X=arg
ARG A=1 B=${A:-unset}
ENV P=1 Q=${P:-unset}
ENV LEG old $X form
ARG G
ARG H
ARG N=${X}-n
ENV ONE=$X,$A,$B,$P,$Q,$LEG,$G,$H,$N
FROM one
ENV TWO=$X,$A,$N,$G
ARG X=late
ENV THREE=$X
"""


@pytest.mark.requires_docker
@pytest.mark.parametrize("arguments", [{}, {"X": "given", "A": "$X", "G": "g"}])
def test_values_are_those_that_the_engine_sees(tmp_path: Path, arguments: dict[str, str]) -> None:
    path = of(tmp_path, SCOPES)
    told = {each.name: each.value for each in declarations(path, arguments) if each.instruction == "ENV"}
    given_ones = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    tag = f"madengine-test-scopes:{len(arguments)}"
    try:
        assert command.run(["docker", "buildx", "build", "--load", f"--tag={tag}", *given_ones, str(tmp_path)])
        shown = command.run(["docker", "image", "inspect", "--format={{json .Config.Env}}", tag])
    finally:
        command.run(["docker", "image", "rm", tag])
    seen = dict(pair.split("=", 1) for pair in json.loads(shown.output))
    assert told == {name: seen.get(name) for name in told}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(["FROM x AS s", "FROM s", "ARG", "ENV"]).flatmap(
            lambda word: st.tuples(
                st.just(word), st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))
            )
        )
    )
)
def test_any_dockerfile_is_read(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]) -> None:
    path = of(tmp_path_factory.mktemp("d"), "".join(f"{word} {text}\n" for word, text in steps))
    assert all(each.instruction in {"ARG", "ENV"} and each.line >= 1 for each in declarations(path, {"A": "1"}))
