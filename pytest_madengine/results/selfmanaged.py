"""Results of models that start their own containers: where their scripts leave them, and how their files are read.

Such a script writes a perf.csv of its own, in one of several places. When it is over, the job's shell looks there, on
the machine that ran it, and keeps what it finds among the job's artifacts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

from pytest_madengine.errors import Fault, FaultsError, nearest
from pytest_madengine.jobs.job import Job
from pytest_madengine.models.model import Model
from pytest_madengine.results.multiple import Table
from pytest_madengine.results.perf import SUCCESS

NUMBER, USER, HOME = "${SLURM_JOB_ID}", "${USER}", "${HOME}"
OF_CLUSTER = (
    f"/shared_inference/{USER}/{NUMBER}/perf.csv",
    f"/shared_inference/{USER}/model_blog_logs/{NUMBER}/perf.csv",
    f"slurm_output/perf_csv/{NUMBER}[!0-9]*csv",
    f"slurm_output/perf_csv/*[!0-9]{NUMBER}[!0-9]*csv",
)
"""Where scripts leave results on a cluster; each place holds the job's number, so it is no other job's."""
OF_SCRIPT = "perf*.csv"
"""In the script's own folder, which is a private copy."""
FOLDERS = ("${run_dir}", "${MADENGINE_WORKSPACE}", "${MADENGINE_PROJECT}")
"""Where relative places start, in the words of the job's shell; the last is shared, so it needs the job's number."""
KEPT = re.compile(r"selfmanaged-\d+\.csv")
"""What a file of results is called among the artifacts."""

SPELLINGS = {
    "%j": NUMBER,
    "$SLURM_JOB_ID": NUMBER,
    "$SLURM_JOBID": NUMBER,
    "%u": USER,
    "$USER": USER,
    "~": HOME,
    "$HOME": HOME,
}
"""How `slurm.results_dir` may name what only the job knows, and what the job's shell calls it."""
_SPELLING = re.compile(r"^~(?=/|$)|\$\{(?P<braced>\w*)\}|\$\w*|%.?")
_PATTERN = re.compile(r"(\*|\[!0-9\])")
_SPECIAL = re.compile(rf'{"|".join(map(re.escape, (NUMBER, USER, HOME, *FOLDERS)))}|[\\"$`]')


def places(card: Model, results_dir: str | None, *, on_cluster: bool) -> tuple[str, ...]:
    """Where the results of a model may stand when its script is over, the best first.

    Args:
        card: the model's; its `multiple_results` comes first.
        results_dir: `slurm.results_dir`, None where nobody states it.
        on_cluster: whether the job has a number.

    Returns:
        file names as a shell reads them; see `words`.

    Raises:
        FaultsError: the results_dir names what no job knows, or would be the same for every job.
    """
    stated = _folder(card, results_dir) if results_dir else None
    named = [card.multiple_results] if card.multiple_results else []
    inside = [] if stated is None else [posixpath.join(stated, posixpath.basename(name)) for name in named]
    inside += [] if stated is None else [posixpath.join(stated, OF_SCRIPT)]
    found = (*named, *inside, *OF_CLUSTER, OF_SCRIPT) if on_cluster else (*named, OF_SCRIPT)
    return tuple(dict.fromkeys(found))


def of_job(card: Model, job: Job) -> tuple[str, ...]:
    """The places of a job that was composed; none where its script starts no containers."""
    if not job.self_managed:
        return ()
    return places(card, job.cluster.get("results_dir"), on_cluster=bool(job.cluster))


def words(place: str) -> list[str]:
    """The words of a shell script that name the files of one place, one word for each folder that it may start from."""
    if place.startswith(("/", HOME)):
        return [_quoted(place)]
    folders = FOLDERS if NUMBER in place else FOLDERS[:-1]
    return [_quoted(f"{folder}/{place}") for folder in folders]


def joined(tables: Sequence[Table]) -> Table:
    """The rows of several files, or what is wrong with them.

    Scripts copy what they wrote under other names, and perf_super.csv has the rows of perf.csv with more columns: what
    an earlier file says is not said again.
    """
    if problem := "; ".join(table.problem for table in tables if table.problem):
        return Table(problem=problem)
    rows: list[dict[str, str]] = []
    for table in tables:
        rows += [row for row in table.rows if not any(known.items() <= row.items() for known in rows)]
    return Table(tuple(rows))


def failure(row: Mapping[str, str]) -> str:
    """The status of a row that says of itself that it is no success; '' where it says nothing like that."""
    status = row.get("status", "").upper()
    return "" if status in ("", SUCCESS) else status


def failures(table: Table) -> str:
    """What the rows of such a file say went wrong, for people; '' where all succeeded."""
    failed = [f"{row['model']} {row['metric']} {status}" for row in table.rows if (status := failure(row))]
    return f"in its results, status of {', '.join(failed)}" if failed else ""


def row_name(model: str, row: Mapping[str, str]) -> str:
    """What a row of such a file is called: scripts name it after the model, or after what they served."""
    return model if row["model"] in ("", model) else f"{model}_{row['model']}"


def _folder(card: Model, results_dir: str) -> str:
    """The folder in the words of the job's shell; what is in the model's own scripts folder is in its private copy."""
    folder = _SPELLING.sub(lambda found: _known(found, card, results_dir), posixpath.normpath(results_dir))
    if NUMBER in folder:
        return folder
    copied = posixpath.relpath(f"/{folder}", f"/{card.scripts_folder}")
    if folder.startswith(("/", HOME, "..")) or copied.startswith(".."):
        valid = f"the job's number in it, as in {posixpath.join(results_dir, '%j')!r}"
        raise _fault(card, f"{results_dir!r} is the same for every job", valid)
    return "" if copied == "." else copied


def _known(found: re.Match[str], card: Model, results_dir: str) -> str:
    word = found[0] if found["braced"] is None else f"${found['braced']}"
    if word not in SPELLINGS:
        raise _fault(card, f"{word!r} in {results_dir!r}", ", ".join(SPELLINGS), nearest(word, SPELLINGS))
    return SPELLINGS[word]


def _fault(card: Model, found: str, valid: str, close: str = "") -> FaultsError:
    return FaultsError([Fault(f"{card.name}: slurm.results_dir", found, valid, close)])


def _quoted(place: str) -> str:
    """The place as a word in which nothing but its variables and patterns is evaluated."""
    pieces = filter(None, _PATTERN.split(place))
    return "".join(piece if _PATTERN.fullmatch(piece) else f'"{_escaped(piece)}"' for piece in pieces)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: found[0] if len(found[0]) > 1 else f"\\{found[0]}", text)
