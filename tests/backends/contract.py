"""What every backend promises. test_contract.py runs all of it on each of them.

A model of these tests may wait for `$GO`, which `Bench.go` makes: nothing here sleeps for luck.
"""

from __future__ import annotations

import functools
import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from pytest_madengine.backends.base import Handle, State, Status
from pytest_madengine.jobs.job import Job
from tests.backends import servers
from tests.backends.support import Bench, Spy, Submitter, files, read, text, until, write

WAIT_FOR_GO = 'until [ -e "$MADENGINE_PROJECT/$GO" ]; do sleep 0.02; done\n'
SHOW_ENVIRONMENT = "import json, os\njson.dump(dict(os.environ), open('../environment.json', 'w'))\n"
SHOW_ARGUMENTS = 'for argument in "$@"; do printf "<%s>\\n" "$argument"; done\n'
KILL_THE_JOB = "kill -KILL $(ps -o ppid= -p $PPID); sleep 60\n"
COUNT = 'echo ran >> "$MADENGINE_PROJECT/runs"\n'
PROMPT = 5.0
"""Seconds within which what should happen at once has happened, on a busy machine too."""
HARD = pytest.mark.parametrize("hard", [False, True], ids=["gently", "hard"])
HIDDEN = "hunter2 'is' my $password"


def runs(bench: Bench) -> int:
    """How often a model ran that begins with COUNT."""
    return len(read(bench.project / "runs").splitlines())


class Outcomes:
    """How jobs end."""

    def test_success(self, bench: Bench) -> None:
        before = time.time()
        outcome = bench.run("echo fine\n")
        assert (outcome.state, outcome.exit_code, outcome.note) == (State.EXITED, 0, "")
        assert outcome.node
        assert 0 < outcome.duration < time.time() - before + 0.1
        assert [(phase.name, phase.code) for phase in outcome.phases] == [("prepare", 0), ("model", 0)]
        model = outcome.phase("model")
        assert model
        assert before <= model.started <= model.ended <= time.time()
        assert outcome.log.read_bytes()[model.log_from : model.log_to] == b"fine\n"

    @pytest.mark.parametrize("code", [1, 7, 255])
    def test_an_exit_code(self, bench: Bench, code: int) -> None:
        outcome = bench.run(f"echo so far; exit {code}\n")
        assert (outcome.state, outcome.exit_code) == (State.EXITED, code)
        assert "so far" in text(outcome)

    @pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("SEGV", 139), ("TERM", 143)])
    def test_a_model_killed_by_a_signal(self, bench: Bench, signal: str, code: int) -> None:
        outcome = bench.run(f"echo so far; kill -{signal} $$\n")
        assert (outcome.state, outcome.exit_code) == (State.EXITED, code)
        assert "so far" in text(outcome)

    def test_the_end_of_the_whole_job_is_no_success(self, bench: Bench) -> None:
        outcome = bench.run(f"sleep {bench.nap} & echo so far; {KILL_THE_JOB}")
        assert outcome.exit_code != 0
        assert "so far" in text(outcome)
        assert bench.sleeping() == []

    def test_what_a_model_left_running_is_ended(self, bench: Bench) -> None:
        outcome = bench.run(f"setsid sleep {bench.nap} & env -i sleep {bench.nap} & exit 0\n")
        assert outcome.exit_code == 0
        assert bench.sleeping() == []


class Logs:
    """The log of a run."""

    def test_it_grows_while_the_model_runs(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(f"echo first\n{WAIT_FOR_GO}echo last\n"))
        until(lambda: bench.says(handle, "first"))
        assert not bench.says(handle, "last")
        assert bench.state(handle) is State.RUNNING
        bench.go(handle)
        assert text(bench.finish(handle)).splitlines()[-2:] == ["first", "last"]

    def test_standard_output_and_error_in_order(self, bench: Bench) -> None:
        outcome = bench.run("echo 1; echo 2 >&2; echo 3; echo 4 >&2; exit 1\n")
        assert text(outcome).splitlines()[-4:] == ["1", "2", "3", "4"]

    def test_unicode_and_binary_junk(self, bench: Bench) -> None:
        junk = "größe → 🚀\n".encode() + bytes(range(256)) + b"\xff\xfe\r\r\n\x1b[31m"
        write(bench.project / "scripts/model/junk", "").write_bytes(junk)
        outcome = bench.run("cat junk\n")
        assert outcome.exit_code == 0
        assert outcome.log.read_bytes().endswith(junk)

    def test_a_log_of_50_megabytes(self, bench: Bench) -> None:
        outcome = bench.run("yes 'one line of a very talkative model' | head -c 50000000; echo; echo the end\n")
        assert outcome.exit_code == 0
        assert outcome.log.stat().st_size > 50_000_000
        with outcome.log.open("rb") as log:
            log.seek(-100, 2)
            assert log.read().endswith(b"\nthe end\n")
        model = outcome.phase("model")
        assert model
        assert model.log_to == outcome.log.stat().st_size

    def test_without_any_line_end(self, bench: Bench) -> None:
        assert text(bench.run("printf 'no line end'\n")).endswith("no line end")


class Environments:
    """What the model sees."""

    VALUES: ClassVar = {
        "QUOTES": """it's "quoted" \\'twice\\' """,
        "DOLLARS": "$HOME ${PATH} $(false) `false` \\$x",
        "SPACES": "  two  spaces\tand a tab ",
        "LINES": "first\nsecond\n\nlast\n",
        "UNICODE": "größe → 🚀",
        "SYNTAX": "a=b;c&d|e<f>g*h?i[j]k{l,m}n~o#p!q%r,s:t",
        "EMPTY": "",
        "DASH": "--not-an-option",
        "PATH": "/opt/my tools:/usr/local/bin:/usr/bin:/bin",
        "CDPATH": "/:/tmp",
        "LONG": "x" * 100_000,
    }

    def test_values_arrive_unchanged(self, bench: Bench) -> None:
        write(bench.project / "scripts/model.py", SHOW_ENVIRONMENT)
        outcome = bench.run(scripts="scripts/model.py", env_vars=self.VALUES, context={"env_vars": {"FROM": "context"}})
        assert outcome.exit_code == 0, text(outcome)
        seen = json.loads(outcome.artifacts["environment.json"].read_text())
        assert {name: seen.get(name) for name in self.VALUES} == self.VALUES
        assert seen["FROM"] == "context"
        assert seen["MAD_MODEL_NAME"] == "model"

    def test_secrets_arrive_and_are_shown_to_nobody(self, bench: Bench) -> None:
        job = bench.job(
            "set -eu\npython3 show.py\n" + WAIT_FOR_GO,
            context={"secrets": {"PLAIN": HIDDEN}, "env_vars": {"HF_TOKEN": HIDDEN}},
            environ={"MAD_SECRETS_X": HIDDEN},
            credentials={"hub": {"username": "me", "password": HIDDEN}},
            cred="hub",
        )
        write(bench.project / "scripts/model/show.py", SHOW_ENVIRONMENT)
        plan = bench.backend.plan(job)
        assert "hunter2" not in repr(plan.request)
        assert "hunter2" not in json.dumps(plan.request)
        with Spy("hunter2") as spy:
            handle = bench.submit(job)
            until(lambda: bench.begun(handle, "model"))
        bench.go(handle)
        outcome = bench.finish(handle)
        assert outcome.exit_code == 0, text(outcome)
        assert spy.seen == []
        seen = json.loads(outcome.artifacts["environment.json"].read_text())
        named = ("PLAIN", "HF_TOKEN", "MAD_SECRETS_X", "hub_PASSWORD")
        assert {name: seen[name] for name in named} == dict.fromkeys(named, HIDDEN)
        outcome.artifacts["environment.json"].unlink()
        assert [name for name, content in files(bench.directory.path).items() if b"hunter2" in content] == []

    def test_files_and_jobs_have_names_of_all_kinds(self, bench: Bench) -> None:
        outcome = bench.run(SHOW_ARGUMENTS, name="a 'b' \"c\" $d/é;f", args="fine")
        assert text(outcome).splitlines()[0].startswith("madengine: a 'b' \"c\" $d/é;f on ")
        assert "<fine>" in text(outcome)


class Scripts:
    """What is run, and what before and after it."""

    def test_arguments(self, bench: Bench) -> None:
        outcome = bench.run(SHOW_ARGUMENTS, args="--batch 8 --name 'two words' \"it's\" a\\ b '$HOME' --empty ''")
        words = ["--batch", "8", "--name", "two words", "it's", "a b", "$HOME", "--empty", ""]
        assert text(outcome).splitlines()[1:] == [f"<{word}>" for word in words]

    def test_arguments_of_the_context_replace_those_of_the_card(self, bench: Bench) -> None:
        outcome = bench.run(SHOW_ARGUMENTS, args="--mine", context={"model_args": "--yours 1"})
        assert text(outcome).splitlines()[1:] == ["<--yours>", "<1>"]

    def test_a_python_script_beside_others(self, bench: Bench) -> None:
        write(bench.project / "scripts/shared/helper.py", "WORD = 'helped'\n")
        outcome = bench.run(
            "import sys, helper\nprint(helper.WORD, *sys.argv[1:])\n", scripts="scripts/shared/main.py", args="--x 1"
        )
        assert text(outcome).splitlines()[1:] == ["helped --x 1"]

    def test_a_folder_with_spaces_hidden_files_folders_and_links(self, bench: Bench) -> None:
        folder = bench.project / "scripts/my model's $files"
        write(folder / ".hidden", "hidden\n")
        write(folder / "..very", "very\n")
        write(folder / "deep/er/file name", "deep\n")
        write(bench.project / "data/linked", "linked\n")
        (folder / "link").symlink_to("../../data/linked")
        (folder / "folder").symlink_to("../../data")
        outcome = bench.run(
            "cat .hidden ..very 'deep/er/file name' link folder/linked\n", scripts="scripts/my model's $files"
        )
        assert text(outcome).splitlines()[1:] == ["hidden", "very", "deep", "linked", "linked"]

    def test_a_script_at_the_top_of_the_project(self, bench: Bench) -> None:
        outcome = bench.run("echo here: *\n", scripts="run.sh")
        assert outcome.exit_code == 0
        assert text(outcome).splitlines()[1:] == ["here: run.sh"]

    def test_the_projects_other_files_stand_beside_it(self, bench: Bench) -> None:
        write(bench.project / "data/words.txt", "words\n")
        outcome = bench.run("cat ../data/words.txt\n")
        assert text(outcome).splitlines()[1:] == ["words"]

    def test_scripts_before_and_after_run_in_order_where_the_model_runs(self, bench: Bench) -> None:
        for name in ("one", "two", "three", "four"):
            write(bench.project / f"tools/{name}.sh", f'echo {name} "$@" in "${{PWD##*/}}"; echo {name} >> trace\n')
        outcome = bench.run(
            "echo model; cat trace\n",
            context={
                "pre_scripts": [{"path": "tools/one.sh", "args": "--a 'b c'"}, "tools/two.sh"],
                "post_scripts": ["tools/three.sh", "tools/four.sh"],
            },
        )
        lines = "one --a b c in run_directory,two in run_directory,model,one,two,three in run_directory"
        assert text(outcome).splitlines()[1:] == [*lines.split(","), "four in run_directory"]
        steps = ["prepare", "pre_script_1", "pre_script_2", "model", "post_script_1", "post_script_2"]
        assert [phase.name for phase in outcome.phases] == steps

    def test_a_failing_script_before_stops_the_model(self, bench: Bench) -> None:
        write(bench.project / "before.sh", "echo no good; exit 9\n")
        outcome = bench.run("echo the model ran\n", context={"pre_scripts": ["before.sh"]})
        assert outcome.exit_code == 9
        assert text(outcome).splitlines()[1:] == ["no good"]
        assert outcome.phase("model") is None

    def test_a_script_after_runs_even_when_the_model_failed(self, bench: Bench) -> None:
        write(bench.project / "after.sh", "echo after\n")
        outcome = bench.run("exit 5\n", context={"post_scripts": ["after.sh"]})
        assert outcome.exit_code == 5
        assert text(outcome).splitlines()[1:] == ["after"]

    def test_a_failing_script_after_fails_the_run(self, bench: Bench) -> None:
        write(bench.project / "bad.sh", "exit 6\n")
        write(bench.project / "good.sh", "echo good\n")
        outcome = bench.run("echo model\n", context={"post_scripts": ["bad.sh", "good.sh"]})
        assert outcome.exit_code == 6
        assert text(outcome).splitlines()[1:] == ["model", "good"]

    def test_a_missing_script_before_fails_and_says_so(self, bench: Bench) -> None:
        outcome = bench.run("echo the model ran\n", context={"pre_scripts": ["nowhere.sh"]})
        assert outcome.exit_code != 0
        assert "nowhere.sh" in text(outcome)
        assert "the model ran" not in text(outcome)

    def test_an_encapsulating_command(self, bench: Bench) -> None:
        outcome = bench.run(
            'echo "$WRAPPED" "$@"\n', args="--x 'a b'", context={"encapsulate_script": "env WRAPPED=yes"}
        )
        assert text(outcome).splitlines()[1:] == ["yes --x a b"]


class Results:
    """Files that a run leaves, and files that it must not touch."""

    def test_written_where_the_model_runs_or_above(self, bench: Bench) -> None:
        outcome = bench.run("echo 1 > here.csv; echo 2 > ../above.csv; echo '{}' > ../facts.json; echo 3 > other.txt\n")
        assert {name: path.read_text() for name, path in outcome.artifacts.items()} == {
            "here.csv": "1\n",
            "above.csv": "2\n",
            "facts.json": "{}\n",
        }

    @pytest.mark.parametrize("name", ["results.csv", "out/the results.csv", "../results.csv", "table.txt"])
    def test_the_named_file(self, bench: Bench, name: str) -> None:
        write(bench.project / name.removeprefix("../"), "stale\n")
        outcome = bench.run(f"mkdir -p out ../out; echo fresh > '{name}'\n", multiple_results=name)
        assert outcome.artifacts[Path(name).name].read_text() == "fresh\n"

    def test_a_run_without_new_files_has_none(self, bench: Bench) -> None:
        for place in ("scripts/model/results.csv", "scripts/model/other.csv", "results.csv", "other.csv"):
            write(bench.project / place, "stale\n")
        outcome = bench.run("cat results.csv; exit 0\n", multiple_results="results.csv")
        assert outcome.exit_code == 0
        assert outcome.artifacts == {}

    def test_files_are_kept_when_the_model_fails(self, bench: Bench) -> None:
        assert set(bench.run("echo 1 > a.csv; exit 3\n").artifacts) == {"a.csv"}

    def test_the_project_is_as_it_was(self, bench: Bench) -> None:
        write(bench.project / "scripts/model/data/words", "words\n")
        write(bench.project / "models.json", "[]\n")
        write(bench.project / "old.csv", "old\n")
        script = "echo more >> run.sh; echo x > data/words; rm -r data; touch new ../new; chmod 600 run.sh\n"
        job = bench.job(f"{script}cat ../old.csv; echo new > ../old.csv; echo '{{}}' > ../models.json\n")
        before = _listing(bench.project)
        outcome = bench.finish(bench.submit(job))
        assert outcome.exit_code == 0, text(outcome)
        assert text(outcome).splitlines()[1:] == ["old"]
        assert _listing(bench.project) == before
        assert {name: path.read_text() for name, path in outcome.artifacts.items()} == {
            "old.csv": "new\n",
            "models.json": "{}\n",
        }

    def test_jobs_of_one_model_at_the_same_time_do_not_meet(self, bench: Bench) -> None:
        script = 'echo "$WHO" > ../who.csv; echo "I am $WHO"\n' + WAIT_FOR_GO + "ls .. > seen.csv; cat ../who.csv\n"
        handles = [bench.submit(bench.job(script, env_vars={"WHO": who})) for who in ("one", "two", "three")]
        for handle, who in zip(handles, ("one", "two", "three"), strict=True):
            until(functools.partial(bench.says, handle, f"I am {who}"))
        assert {bench.state(handle) for handle in handles} == {State.RUNNING}
        for handle in handles:
            bench.go(handle)
        for handle, who in zip(handles, ("one", "two", "three"), strict=True):
            outcome = bench.finish(handle)
            assert text(outcome).splitlines()[1:] == [f"I am {who}", who]
            assert outcome.artifacts["who.csv"].read_text() == f"{who}\n"

    def test_nothing_is_left_but_the_jobs_own_folder(self, bench: Bench) -> None:
        outcome = bench.run("mkdir -m 0 closed; touch ..odd .hidden ../..odd ../.hidden; echo 1 > a.csv\n")
        left = {path.name for path in outcome.log.parent.iterdir()}
        assert left >= {"run.sh", "run.log", "exit_code", "phases", "artifacts"}
        assert "workspace" not in left
        assert bench.held() == []

    def test_a_named_file_that_never_came(self, bench: Bench) -> None:
        outcome = bench.run("echo 1 > else.txt\n", multiple_results="never.csv")
        assert (outcome.exit_code, outcome.artifacts) == (0, {})

    def test_no_folder_for_them(self, bench: Bench) -> None:
        outcome = bench.run('echo 1 > a.csv; rm -r "$MADENGINE_JOB/artifacts"; exit 3\n')
        assert (outcome.exit_code, outcome.artifacts) == (3, {})

    def test_none_of_a_job_that_was_killed_as_a_whole(self, bench: Bench) -> None:
        assert bench.run(f"echo 1 > a.csv; {KILL_THE_JOB}").artifacts == {}

    def test_a_folder_that_somebody_removed(self, bench: Bench) -> None:
        handle = bench.submit(bench.job("exit 3\n"))
        bench.await_end(handle)
        shutil.rmtree(handle.directory)
        outcome = bench.collect(handle)
        assert (outcome.artifacts, outcome.phases) == ({}, ())
        assert outcome.exit_code == (None if bench.backend.remote and bench.place.shared else 3)
        assert not Path(handle.directory).exists()

    WRITE = "echo 1 > a.csv; mkdir -m 700 deep; echo 2 > ../b.json; touch deep/file\n"

    def test_all_files_belong_to_the_user_who_submitted(self, submitter: Submitter) -> None:
        outcome = submitter.as_plain_user(self.WRITE)
        assert outcome == {"exit_code": 0, "artifacts": ["a.csv", "b.json"], "foreign": [], "left": []}

    def test_they_do_even_when_the_whole_job_was_killed(self, submitter: Submitter) -> None:
        outcome = submitter.as_plain_user(f"{self.WRITE}{KILL_THE_JOB}")
        assert outcome["exit_code"] != 0
        assert (outcome["foreign"], outcome["left"]) == ([], [])


def _listing(folder: Path) -> dict[str, tuple[float, int, int]]:
    """What would change if somebody touched a file."""
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    stats = {str(path.relative_to(folder)): path.lstat() for path in paths}
    return {name: (stat.st_mtime, stat.st_size, stat.st_mode) for name, stat in stats.items()}


class Cancelling:
    """Ends that come from outside."""

    STUBBORN: ClassVar = {
        "children": "sleep {nap} & sleep {nap}\n",
        "grandchildren": "bash -c '(sleep {nap} & sleep {nap}) & wait'\n",
        "deaf": "trap '' TERM INT HUP; sleep {nap} & sleep {nap}\n",
        "without environment": "env -i sleep {nap} & setsid bash -c 'env -i sleep {nap} & sleep {nap}' & wait\n",
        "moved away": "setsid bash -c 'trap \"\" TERM; sleep {nap} & sleep {nap}' & setsid sleep {nap} & sleep {nap}\n",
    }

    @HARD
    def test_nothing_that_a_model_started_survives(self, bench: Bench, *, hard: bool) -> None:
        scripts = [script.format(nap=bench.nap) for script in self.STUBBORN.values()]
        handles = [bench.submit(bench.job(script, name=f"m{n}", scripts=f"s{n}")) for n, script in enumerate(scripts)]
        until(lambda: len(bench.sleeping()) == 13)
        busy, started = time.process_time(), time.monotonic()
        bench.backend.cancel(handles, hard=hard)
        assert time.process_time() - busy < 2
        assert not hard or time.monotonic() - started < PROMPT * bench.place.slow
        assert bench.sleeping() == []
        assert all(status.state.over for status in bench.backend.states(handles).values())
        codes = {bench.collect(handle).exit_code for handle in handles}
        killed = {-9, 137} if bench.place.shared else {137, 143}
        assert codes <= killed if hard else codes == {143}
        assert bench.held() == []

    def test_an_obedient_model_ends_at_once_and_keeps_what_it_wrote(self, bench: Bench) -> None:
        script = f"trap 'echo tidied; exit 0' TERM; echo 1 > a.csv; sleep {bench.nap} & echo ready; wait\n"
        handle = bench.submit(bench.job(script))
        until(lambda: bench.says(handle, "ready"))
        started = time.monotonic()
        bench.backend.cancel([handle])
        assert time.monotonic() - started < 3 * bench.place.slow
        outcome = bench.collect(handle)
        assert "tidied" in text(outcome)
        assert set(outcome.artifacts) == {"a.csv"}
        assert not (outcome.log.parent / "workspace").exists()

    @HARD
    def test_before_the_model_has_begun(self, bench: Bench, *, hard: bool) -> None:
        for _ in range(5):
            handle = bench.submit(bench.job(f"sleep {bench.nap}\n"))
            started = time.monotonic()
            bench.backend.cancel([handle], hard=hard)
            assert time.monotonic() - started < 10 * bench.place.slow
            assert bench.state(handle).over
            assert bench.collect(handle).exit_code != 0
        assert bench.sleeping() == []
        assert bench.held() == []

    PHASES: ClassVar = ["prepare", "pre_script_1", "model", "post_script_1"]

    @HARD
    @pytest.mark.parametrize("phase", PHASES)
    def test_in_every_phase(self, bench: Bench, phase: str, *, hard: bool) -> None:
        handle = bench.submit(_sleeping_in(bench, phase))
        until(bench.sleeping)
        started = time.monotonic()
        bench.backend.cancel([handle], hard=hard)
        assert time.monotonic() - started < PROMPT * bench.place.slow
        assert bench.sleeping() == []
        outcome = bench.collect(handle)
        assert outcome.exit_code not in (0, None)
        seen = bench.place.shared or not hard  # what dies at once hands over nothing
        until_then = self.PHASES[: self.PHASES.index(phase) + 1] if seen else []
        assert [(step.name, step.code) for step in outcome.phases] == [
            (name, -1 if name == phase else 0) for name in until_then
        ]
        kept = set() if hard or phase not in self.PHASES[2:] else {"a.csv"}
        assert set(outcome.artifacts) == kept
        assert bench.held() == []

    @HARD
    def test_after_the_end_changes_nothing(self, bench: Bench, *, hard: bool) -> None:
        handle = bench.submit(bench.job("echo 1 > a.csv\n"))
        bench.await_end(handle)
        bench.backend.cancel([handle], hard=hard)
        outcome = bench.collect(handle)
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.EXITED, 0, {"a.csv"})

    def test_hard_in_the_middle_of_a_gentle_one(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(f"trap '' TERM; sleep {bench.nap} & sleep {bench.nap}\n"))
        until(lambda: len(bench.sleeping()) == 2)
        started = time.monotonic()
        gently = threading.Thread(target=bench.backend.cancel, args=([handle],))
        gently.start()
        bench.backend.cancel([handle], hard=True)
        gently.join()
        assert time.monotonic() - started < PROMPT * bench.place.slow
        assert bench.sleeping() == []

    def test_twice_and_after_collection_and_nothing_at_all(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(f"sleep {bench.nap}\n"))
        bench.backend.cancel([handle])
        bench.backend.cancel([handle, handle])
        bench.collect(handle)
        bench.backend.cancel([handle])
        bench.backend.cancel([])
        assert bench.sleeping() == []

    def test_of_one_leaves_the_others_alone(self, bench: Bench) -> None:
        first, second = (bench.submit(bench.job(WAIT_FOR_GO)) for _ in range(2))
        bench.until_running(second)
        bench.backend.cancel([first])
        assert bench.state(first).over
        assert bench.state(second) is State.RUNNING
        bench.go(second)
        assert bench.finish(second).exit_code == 0

    def test_in_the_middle_of_a_clone(self, bench: Bench) -> None:
        with servers.silent() as url:
            handle = bench.submit(bench.job("echo the model ran\n", url=f"{url}/repository.git"))
            until(lambda: servers.cloning(url))
            bench.backend.cancel([handle])
            outcome = bench.collect(handle)
            assert not servers.cloning(url)
        assert outcome.exit_code != 0
        assert "the model ran" not in text(outcome)


def _sleeping_in(bench: Bench, phase: str) -> Job:
    """A job that sleeps in one of its steps: in the first because it finds a strange `cp`."""
    nap = {phase: f"sleep {bench.nap}\n"}
    tools = bench.folder / "tools"
    write(tools / "cp", "#!/bin/sh\n" + nap.get("prepare", 'exec /bin/cp "$@"\n')).chmod(0o755)
    for name in ("pre_script_1", "post_script_1"):
        write(bench.project / f"{name}.sh", nap.get(name, "true\n"))
    return bench.job(
        f"echo 1 > a.csv\n{nap.get('model', '')}",
        env_vars={"PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin"},
        context={
            "pre_scripts": ["pre_script_1.sh"],
            "post_scripts": ["post_script_1.sh"],
            "docker_mounts": {str(tools): str(tools)},
        },
    )


class Submitting:
    """Jobs that are handed over more than once."""

    def test_twice(self, bench: Bench) -> None:
        job = bench.job(COUNT + WAIT_FOR_GO)
        handle = bench.submit(job)
        assert bench.submit(job) == handle
        self._ran_once(bench, handle)

    def test_by_another_backend(self, bench: Bench) -> None:
        job = bench.job(COUNT + WAIT_FOR_GO)
        handle = bench.submit(job)
        other = bench.fresh_backend()
        assert other.submit(other.plan(job)) == handle
        self._ran_once(bench, handle)

    def test_by_another_process(self, bench: Bench, submitter: Submitter) -> None:
        script = COUNT + WAIT_FOR_GO
        job = bench.job(script)
        handle = bench.submit(job)
        assert submitter.submit(script, job) == handle
        self._ran_once(bench, handle)

    def test_after_another_process_was_killed(self, bench: Bench, submitter: Submitter) -> None:
        script = COUNT + WAIT_FOR_GO
        job = bench.job(script)
        handle = submitter.submit(script, job)
        submitter.kill()
        assert bench.submit(job) == handle
        self._ran_once(bench, handle)

    def test_by_many_at_the_same_time(self, bench: Bench) -> None:
        job = bench.job(COUNT + WAIT_FOR_GO)
        backends = [bench.fresh_backend() for _ in range(4)]
        with ThreadPoolExecutor(len(backends)) as pool:
            handles = set(pool.map(lambda backend: backend.submit(backend.plan(job)), backends))
        assert len(handles) == 1
        bench.submitted += handles
        self._ran_once(bench, *handles)

    def test_one_that_could_not_be_handed_over_can_be(self, bench: Bench) -> None:
        job = bench.job(COUNT + WAIT_FOR_GO)
        write(job.directory / "run.sh", "what a process left that was killed before it came to more\n")
        assert bench.find(job) is None
        self._ran_once(bench, bench.submit(job))

    @staticmethod
    def _ran_once(bench: Bench, handle: Handle) -> None:
        bench.go(handle)
        assert bench.finish(handle).exit_code == 0
        assert bench.held() == []
        assert runs(bench) == 1

    def test_after_its_end(self, bench: Bench) -> None:
        job = bench.job(f"{COUNT}exit 3\n")
        bench.await_end(bench.submit(job))
        other = bench.fresh_backend()
        for backend in (bench.backend, other):
            assert backend.states([backend.submit(backend.plan(job))])
        outcome = other.collect(other.submit(other.plan(job)))
        assert (outcome.state, outcome.exit_code) == (State.EXITED, 3)
        assert runs(bench) == 1

    def test_after_it_was_collected(self, bench: Bench) -> None:
        job = bench.job(f"{COUNT}echo 1 > a.csv; exit 3\n")
        bench.finish(bench.submit(job))
        for backend in (bench.backend, bench.fresh_backend()):
            handle = backend.submit(backend.plan(job))
            assert backend.states([handle]) == {handle: Status(State.EXITED)}
            outcome = backend.collect(handle)
            assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.EXITED, 3, {"a.csv"})
        assert runs(bench) == 1
        assert bench.held() == []

    @HARD
    def test_after_it_was_cancelled_and_collected(self, bench: Bench, *, hard: bool) -> None:
        job = bench.job(f"{COUNT}sleep {bench.nap}\n")
        handle = bench.submit(job)
        bench.backend.cancel([handle], hard=hard)
        before = bench.collect(handle).exit_code, runs(bench)
        for backend in (bench.backend, bench.fresh_backend()):
            handle = backend.submit(backend.plan(job))
            assert backend.states([handle])[handle].state.over
            assert backend.collect(handle).exit_code in (before[0], None)
        assert runs(bench) == before[1]
        assert bench.held() == []


class Finding:
    """Jobs that a later session knows by their ids and folders alone."""

    def test_one_that_runs(self, bench: Bench) -> None:
        job = bench.job(WAIT_FOR_GO)
        handle = bench.submit(job)
        assert bench.backend.find({job.id: job.directory}) == {job.id: handle}
        assert bench.find(job) == handle
        bench.until_running(handle)

    def test_one_that_is_over(self, bench: Bench) -> None:
        job = bench.job("echo 1 > a.csv; exit 3\n")
        bench.await_end(bench.submit(job))
        self._is_over(bench, job)

    def test_one_that_was_collected(self, bench: Bench) -> None:
        job = bench.job("echo 1 > a.csv; exit 3\n")
        bench.finish(bench.submit(job))
        self._is_over(bench, job)

    @staticmethod
    def _is_over(bench: Bench, job: Job) -> None:
        later = bench.fresh_backend()
        handle = later.find({job.id: job.directory})[job.id]
        assert later.states([handle]) == {handle: Status(State.EXITED)}
        outcome = later.collect(handle)
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.EXITED, 3, {"a.csv"})

    def test_one_that_left_something_running(self, bench: Bench) -> None:
        job = bench.job(f"setsid sleep {bench.nap} &\n{WAIT_FOR_GO}exit 3\n")
        submitted = bench.submit(job)
        until(bench.sleeping)
        bench.go(submitted)
        bench.await_end(submitted)
        handle = bench.find(job)
        assert handle
        assert bench.state(handle) is State.EXITED
        assert bench.collect(handle).exit_code == 3
        assert bench.sleeping() == []

    def test_one_that_was_killed_as_a_whole(self, bench: Bench) -> None:
        job = bench.job(KILL_THE_JOB)
        bench.await_end(bench.submit(job))
        handle = bench.find(job)
        assert handle
        assert bench.state(handle).over
        assert bench.collect(handle).exit_code != 0

    @HARD
    def test_one_that_was_cancelled(self, bench: Bench, *, hard: bool) -> None:
        job = bench.job(f"sleep {bench.nap}\n")
        handle = bench.submit(job)
        bench.backend.cancel([handle], hard=hard)
        bench.collect(handle)
        found = bench.find(job)
        assert found
        assert bench.state(found).over

    def test_one_whose_submitter_was_killed(self, bench: Bench, submitter: Submitter) -> None:
        script = f"echo begun\n{WAIT_FOR_GO}exit 3\n"
        job = bench.job(script)
        handle = submitter.submit(script, job)
        submitter.kill()
        assert bench.find(job) == handle
        bench.go(handle)
        assert bench.finish(handle).exit_code == 3

    def test_one_that_ended_after_its_submitter(self, bench: Bench, submitter: Submitter) -> None:
        script = f"{WAIT_FOR_GO}echo 1 > a.csv; exit 3\n"
        job = bench.job(script)
        handle = submitter.submit(script, job)
        submitter.kill()
        bench.go(handle)
        assert bench.place.shared or not bench.state(handle).over  # somebody has to fetch what it writes
        until((job.directory / "exit_code").exists)
        until(lambda: bench.state(handle).over)
        self._is_over(bench, job)
        assert bench.held() == []

    def test_what_was_found_can_be_cancelled(self, bench: Bench) -> None:
        job = bench.job(f"sleep {bench.nap}\n")
        bench.submit(job)
        until(bench.sleeping)
        later = bench.fresh_backend()
        found = later.find({job.id: job.directory})
        later.cancel(found.values())
        assert bench.sleeping() == []
        assert later.collect(found[job.id]).exit_code == 143
        assert bench.held() == []

    def test_one_that_was_never_handed_over(self, bench: Bench) -> None:
        assert bench.find(bench.job("true\n")) is None

    def test_one_whose_folder_is_not_there(self, bench: Bench) -> None:
        assert bench.backend.find({"never": bench.folder / "nowhere"}) == {}

    def test_none(self, bench: Bench) -> None:
        assert bench.backend.find({}) == {}

    def test_many_at_once(self, bench: Bench) -> None:
        jobs = [bench.job(WAIT_FOR_GO) for _ in range(12)]
        handles = {job.id: bench.submit(job) for job in jobs[::4]}
        ended = bench.job("true\n", scripts="scripts/other")
        bench.finish(bench.submit(ended))
        found = bench.fresh_backend().find({job.id: job.directory for job in [*jobs, ended]})
        assert found.keys() == handles.keys() | {ended.id}
        assert {token: handle for token, handle in found.items() if token in handles} == handles


class Statuses:
    """What a backend says of a job."""

    def test_of_one_that_runs(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(WAIT_FOR_GO))
        bench.until_running(handle)
        assert bench.status(handle) == Status(State.RUNNING)

    @pytest.mark.parametrize("code", [0, 3])
    def test_of_one_that_is_over(self, bench: Bench, code: int) -> None:
        handle = bench.submit(bench.job(f"exit {code}\n"))
        bench.await_end(handle)
        assert bench.status(handle) == Status(State.EXITED)
        bench.collect(handle)
        assert bench.status(handle) == Status(State.EXITED)

    def test_of_one_that_was_killed_as_a_whole(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(KILL_THE_JOB))
        bench.await_end(handle)
        bench.collect(handle)
        assert bench.status(handle) == Status(State.LOST)

    def test_of_many_by_one_question(self, bench: Bench) -> None:
        handles = [bench.submit(bench.job(WAIT_FOR_GO)) for _ in range(3)]
        for handle in handles:
            bench.until_running(handle)
        bench.go(handles[1])
        bench.await_end(handles[1])
        assert bench.backend.states([*handles, handles[0]]) == {
            handles[0]: Status(State.RUNNING),
            handles[1]: Status(State.EXITED),
            handles[2]: Status(State.RUNNING),
        }

    def test_of_one_that_was_collected_is_the_outcomes(self, bench: Bench) -> None:
        for script in ("true\n", "exit 3\n", KILL_THE_JOB):
            handle = bench.submit(bench.job(script))
            bench.await_end(handle)
            outcome = bench.collect(handle)
            assert bench.state(handle) is outcome.state


class Handles:
    """Jobs that another process knows by their handles."""

    def test_an_unknown_one_is_lost(self, bench: Bench) -> None:
        known = bench.submit(bench.job(WAIT_FOR_GO))
        bench.until_running(known)
        unknown = Handle(known.backend, f"{known.token}x", str(bench.folder))
        statuses = bench.backend.states([known, unknown])
        assert {handle: status.state for handle, status in statuses.items()} == {
            known: State.RUNNING,
            unknown: State.LOST,
        }
        bench.backend.cancel([unknown])

    def test_no_handles_no_states(self, bench: Bench) -> None:
        assert bench.backend.states([]) == {}

    def test_it_survives_json(self, bench: Bench) -> None:
        handle = bench.submit(bench.job("exit 4\n"))
        again = Handle(**json.loads(json.dumps(handle.to_json())))
        assert again == handle
        assert bench.finish(again).exit_code == 4

    def test_another_process_picks_it_up(self, bench: Bench, submitter: Submitter) -> None:
        handle = submitter.submit(f"echo begun\n{WAIT_FOR_GO}echo 1 > a.csv; exit 3\n")
        bench.until_running(handle)
        submitter.kill()
        assert bench.state(handle) is State.RUNNING
        bench.go(handle)
        outcome = bench.finish(handle)
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.EXITED, 3, {"a.csv"})
        assert outcome.duration > 0
        assert "begun" in text(outcome)
        assert bench.held() == []

    def test_another_process_cancels_it(self, bench: Bench, submitter: Submitter) -> None:
        handle = submitter.submit(f"sleep {bench.nap} & sleep {bench.nap}\n")
        until(lambda: len(bench.sleeping()) == 2)
        submitter.kill()
        bench.backend.cancel([handle])
        assert bench.sleeping() == []
        assert bench.state(handle).over
        assert bench.collect(handle).exit_code != 0
        assert bench.held() == []

    def test_another_process_meets_it_after_its_end(self, bench: Bench, submitter: Submitter) -> None:
        handle = submitter.submit("echo 1 > a.csv; exit 3\n")
        until((Path(handle.directory) / "exit_code").exists)
        submitter.kill()
        until(lambda: bench.state(handle).over)
        outcome = bench.collect(handle)
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.EXITED, 3, {"a.csv"})


class Waking:
    """Nobody has to look again and again for the end of a job."""

    def test_at_the_end_of_a_job(self, bench: Bench) -> None:
        first, second = (bench.submit(bench.job(WAIT_FOR_GO)) for _ in range(2))
        assert self._seconds_until_woken(bench, second, bench.go) < PROMPT
        assert bench.state(first) is State.RUNNING

    def test_at_each_end(self, bench: Bench) -> None:
        script = f'{WAIT_FOR_GO}exit "$CODE"\n'
        handles = [bench.submit(bench.job(script, env_vars={"CODE": str(code)})) for code in range(3)]
        for code, handle in enumerate(handles):
            assert self._seconds_until_woken(bench, handle, bench.go) < PROMPT
            assert bench.collect(handle).exit_code == code

    def test_at_the_end_of_a_job_of_another_process(self, bench: Bench, submitter: Submitter) -> None:
        handle = submitter.submit(WAIT_FOR_GO)
        assert self._seconds_until_woken(bench, handle, bench.go) < PROMPT
        bench.collect(handle)

    def test_even_if_that_process_is_dead(self, bench: Bench, submitter: Submitter) -> None:
        handle = submitter.submit(WAIT_FOR_GO)
        submitter.kill()
        assert self._seconds_until_woken(bench, handle, bench.go) < PROMPT
        bench.collect(handle)

    def test_when_a_job_is_killed_as_a_whole(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(WAIT_FOR_GO + KILL_THE_JOB))
        assert self._seconds_until_woken(bench, handle, bench.go) < PROMPT

    @HARD
    def test_when_another_session_cancels_it(self, bench: Bench, *, hard: bool) -> None:
        handle = bench.submit(bench.job(f"sleep {bench.nap}\n"))
        until(bench.sleeping)
        other = bench.fresh_backend()
        limit = PROMPT * bench.place.slow
        assert self._seconds_until_woken(bench, handle, lambda handle: other.cancel([handle], hard=hard)) < limit

    def test_for_one_that_ends_before_anybody_looks(self, bench: Bench) -> None:
        handle = bench.submit(bench.job("true\n"))
        until((Path(handle.directory) / "exit_code").exists)
        started = time.monotonic()
        bench.await_end(handle)
        assert time.monotonic() - started < PROMPT

    @staticmethod
    def _seconds_until_woken(bench: Bench, handle: Handle, end: Callable[[Handle], None]) -> float:
        """From the end to the first look that sees it, all looks being those to which the backend woke us."""
        until(lambda: bench.state(handle) is State.RUNNING)
        bench.woken.clear()
        started = time.monotonic()
        end(handle)
        assert bench.woken.wait(PROMPT * bench.place.slow)
        bench.await_end(handle)
        return time.monotonic() - started


class Repositories:
    """Models whose code is cloned."""

    def test_the_scripts_lie_over_the_clone(self, bench: Bench, tmp_path: Path) -> None:
        repository = servers.repository(
            tmp_path / "some where's/their code", {"train.py": "theirs", "run.sh": "exit 1"}
        )
        outcome = bench.run("cat train.py; echo; echo ${PWD##*/}\n", **_from(f"file://{repository.path}", repository))
        assert outcome.exit_code == 0, text(outcome)
        assert text(outcome).splitlines()[1:] == ["theirs", "their code"]
        assert outcome.git_commit == repository.commit
        assert [phase.name for phase in outcome.phases] == ["clone", "prepare", "model"]

    def test_a_wrong_url_is_a_failing_step(self, bench: Bench, tmp_path: Path) -> None:
        outcome = bench.run("echo the model ran\n", url=f"file://{tmp_path}/nowhere.git")
        assert outcome.exit_code not in (0, None)
        clone = outcome.phase("clone")
        assert clone
        assert clone.code == outcome.exit_code
        assert "nowhere.git" in text(outcome)
        assert "the model ran" not in text(outcome)


class PrivateRepositories:
    """A card's `url` on a server of this machine's loopback."""

    def test_with_a_credential_that_nobody_sees(self, bench: Bench, tmp_path: Path) -> None:
        repository = servers.repository(tmp_path / "private.git", {"train.py": "theirs"})
        with servers.private(repository, "me", HIDDEN) as url:
            outcome = bench.run("cat train.py\n", url=url, **_login("me", HIDDEN))
        assert outcome.exit_code == 0, text(outcome)
        assert outcome.git_commit == repository.commit
        assert "hunter2" not in text(outcome)

    def test_with_a_wrong_credential(self, bench: Bench, tmp_path: Path) -> None:
        repository = servers.repository(tmp_path / "private.git", {"train.py": "theirs"})
        with servers.private(repository, "me", "right") as url:
            outcome = bench.run("echo the model ran\n", url=url, **_login("me", HIDDEN))
        assert outcome.exit_code not in (0, None)
        assert "Authentication failed" in text(outcome)
        assert "hunter2" not in text(outcome)


def _login(username: str, password: str) -> dict[str, object]:
    return {"cred": "site", "credentials": {"site": {"username": username, "password": password}}}


def _from(url: str, repository: servers.Repository) -> dict[str, object]:
    """A card's url, and what lets a container see the repository under its own path."""
    folder = str(repository.path.parent)
    return {"url": url, "context": {"docker_mounts": {folder: folder}}}
