from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.images.identity import content_hash, files

Change = Callable[[Path], object]
pairs = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A build context `docker`, a further one `tools`, and a Dockerfile."""
    folder = tmp_path / "project"
    texts = {
        "docker/m.Dockerfile": "FROM x\nCOPY . /\n",
        "docker/.dockerignore": "*.log\n# comment\n\n!kept.log\nignored/\n",
        "docker/app/main.py": "print(1)",
        "docker/app/run.sh": "exit",
        "docker/old.log": "noise",
        "docker/kept.log": "data",
        "docker/ignored/x": "noise",
        "tools/helper.py": "help",
        "tools/old.log": "counts here",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "docker/link").symlink_to("app/main.py")
    return folder


def identity(project: Path, *contexts: str) -> str:
    folders = [project / name for name in contexts or ("docker", "tools")]
    return content_hash(project / "docker" / "m.Dockerfile", folders, {"A": "1"}, {"x": "sha256:1"})


def text(name: str, content: str) -> Change:
    return lambda project: (project / name).write_text(content, encoding="utf-8")


def mode(name: str, value: int) -> Change:
    return lambda project: (project / name).chmod(value)


def move(name: str, to: str) -> Change:
    return lambda project: (project / name).rename(project / to)


def relink(project: Path) -> None:
    (project / "docker/link").unlink()
    (project / "docker/link").symlink_to("app/run.sh")


def link_to_copy(project: Path) -> None:
    (project / "docker/link").unlink()
    shutil.copy(project / "docker/app/main.py", project / "docker/link")


CHANGES: dict[str, Change] = {
    "the Dockerfile's text": text("docker/m.Dockerfile", "FROM x\nCOPY . /app\n"),
    "a file's text": text("docker/app/main.py", "print(2)"),
    "a new file": text("docker/app/new.py", ""),
    "a removed file": lambda project: (project / "docker/app/main.py").unlink(),
    "a renamed file": move("docker/app/main.py", "docker/app/other.py"),
    "a program": mode("docker/app/run.sh", 0o755),
    "an empty folder": lambda project: (project / "docker/empty").mkdir(),
    "a link's goal": relink,
    "a link that became a copy": link_to_copy,
    "a file that the ignore file keeps": text("docker/kept.log", "other"),
    "what is ignored": text("docker/.dockerignore", "*.log\n"),
    "a helper": text("tools/helper.py", "changed"),
    "a log in a folder without ignore file": text("tools/old.log", "changed"),
    "a file that moved between contexts": move("tools/old.log", "docker/zz"),
    "a program that is called like perf.csv": text("docker/perf_entrypoint.sh", "exit"),
    "a folder that is called like perf_super.csv": lambda project: (project / "docker/perf_super_utils").mkdir(),
    "a Dockerfile's own ignore file": text("docker/m.Dockerfile.dockerignore", "app\n"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_hash_changes_with(project: Path, what: str) -> None:
    before = identity(project)
    CHANGES[what](project)
    assert identity(project) != before


NO_CHANGES: dict[str, Change] = {
    "an ignored file": text("docker/old.log", "other noise"),
    "a file in an ignored folder": text("docker/ignored/y", "more noise"),
    "a time": lambda project: os.utime(project / "docker/app/main.py", (1, 1)),
    "who else may read": mode("docker/app/main.py", 0o600),
    "another Dockerfile outside": text("other.Dockerfile", "FROM y"),
    "perf.csv": text("docker/perf.csv", "rows"),
    "perf_super.json": text("docker/perf_super.json", "[]"),
    "perf_entry.json": text("docker/perf_entry.json", "[]"),
    "our own folder": lambda project: (project / "docker/.madengine/runs").mkdir(parents=True),
}


@pytest.mark.parametrize("what", NO_CHANGES)
def test_the_hash_stays_with(project: Path, what: str) -> None:
    before = identity(project)
    NO_CHANGES[what](project)
    assert identity(project) == before


def test_the_same_content_elsewhere_has_the_same_hash(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    assert identity(copy) == identity(project)


def test_which_context_a_file_lies_in_counts(project: Path) -> None:
    for name in ("docker", "tools"):
        shutil.rmtree(project / name)
    both = {"docker/m.Dockerfile": "", "tools/z": ""}
    for name in both:
        (project / name).parent.mkdir()
        (project / name).touch()
    before = identity(project)
    (project / "tools/z").rename(project / "docker/z")
    assert identity(project) != before


def test_a_dockerfiles_own_ignore_file_is_for_the_main_context_alone(project: Path) -> None:
    dockerfile = project / "docker" / "m.Dockerfile"
    text("docker/m.Dockerfile.dockerignore", "app\nhelper.py\n")(project)
    assert "app/main.py" not in files(project / "docker", dockerfile)
    assert "old.log" in files(project / "docker", dockerfile)
    before = identity(project)
    text("tools/helper.py", "changed")(project)
    assert identity(project) != before


def test_files_are_listed_without_what_is_ignored(project: Path) -> None:
    assert files(project / "docker", None) == [
        ".dockerignore",
        "app",
        "app/main.py",
        "app/run.sh",
        "kept.log",
        "link",
        "m.Dockerfile",
    ]


def test_only_our_own_files_are_left_out(project: Path) -> None:
    left = ["perf.csv", "perf_super.csv", "perf_entry.csv", "perf_entry_super.json"]
    own = ["perf_entrypoint.sh", "perf_super_utils", "perf_super_utils/x", "performance.csv", "my_perf.csv"]
    (project / "tools/perf_super_utils").mkdir()
    for name in [*left, *own]:
        if name != "perf_super_utils":
            (project / "tools" / name).write_text("", encoding="utf-8")
    assert files(project / "tools", None) == sorted(["helper.py", "old.log", *own])


def test_names_that_are_no_utf8_are_names_too(project: Path) -> None:
    before = identity(project)
    odd = project / "docker" / os.fsdecode(b"\xff")
    odd.touch()
    after = identity(project)
    odd.with_name("odd link").symlink_to(odd.name)
    assert len({before, after, identity(project)}) == 3


def test_a_large_file_counts_to_its_last_byte(project: Path) -> None:
    hashes = set()
    for end in (b"a", b"b"):
        (project / "docker/weights").write_bytes(b"\0" * (3 << 20) + end)
        hashes.add(identity(project))
    assert len(hashes) == 2


def test_what_is_neither_file_nor_folder_does_not_matter(project: Path) -> None:
    before = identity(project)
    os.mkfifo(project / "docker/pipe")
    assert identity(project) == before


@settings(deadline=None, max_examples=40)
@given(pairs, pairs, pairs, pairs)
def test_arguments_and_bases_never_blend(
    arguments: dict[str, str], bases: dict[str, str], others: dict[str, str], other_bases: dict[str, str]
) -> None:
    same = (arguments, bases) == (others, other_bases)
    dockerfile = Path(os.devnull)
    hashes = {content_hash(dockerfile, (), arguments, bases), content_hash(dockerfile, (), others, other_bases)}
    assert (len(hashes) == 1) == same


def test_the_order_of_arguments_does_not_matter() -> None:
    dockerfile = Path(os.devnull)
    one = content_hash(dockerfile, (), {"a": "1", "b": "2"}, {})
    assert one == content_hash(dockerfile, (), {"b": "2", "a": "1"}, {})
    assert len(one) == 64
