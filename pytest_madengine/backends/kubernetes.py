"""Runs each job in pods of a Kubernetes cluster, with no more than the rights of docs/kubernetes-role.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pytest_madengine.backends import facts, kubeclaim, kubeend, kubeleft, kubenote, kuberesults, kubestate
from pytest_madengine.backends.base import Handle, Outcome, Plan, State, Status
from pytest_madengine.backends.kubeapi import Place, api
from pytest_madengine.backends.kubefollow import PATIENCE
from pytest_madengine.backends.kubeleft import Remains
from pytest_madengine.backends.kubemanifest import as_yaml, owned_by, shown
from pytest_madengine.backends.kubenames import JOB as ID
from pytest_madengine.backends.kubenote import Asked
from pytest_madengine.backends.kubepod import Manifest
from pytest_madengine.backends.kubetrack import Tracked, Tracker
from pytest_madengine.errors import InfrastructureError, RefusedError
from pytest_madengine.jobs.job import Job

REACH = 20.0
"""Seconds for which a cluster may be out of reach when a job is handed over, ended or collected."""
SHORTLY = 1.0
"""Seconds that what is left of a lost job may take to come."""
UNINDEXED = (
    "the cluster took the Job without its completion mode, so that its pods have no ranks; valid: Kubernetes 1.22 or "
    "newer, one node, or k8s.shape 'jobset' or 'leaderworkerset' with its operator"
)


class KubernetesBackend:
    """`--target=k8s`."""

    name = "k8s"
    deployment = "kubernetes"
    containers = True
    at_once = 300
    remote = True

    def __init__(self) -> None:
        self._wake: Callable[[], None] = _nothing
        self._tracker = Tracker(self._changed)
        self._last: Place | None = None

    def _changed(self) -> None:
        self._wake()

    def plan(self, job: Job) -> Plan:
        """The manifests, by kind and name, without the content of secrets."""
        found = shown(kubenote.objects(job))
        titled = {f"{each['kind'].lower()}/{each['metadata']['name']}.yaml": each for each in found}
        return Plan(job, titled, job.secrets)

    def versions(self) -> Mapping[str, str]:
        """That of the cluster that the last job ran in."""
        return {"kubernetes": api(self._last).version()} if self._last else {}

    def submit(self, plan: Plan) -> Handle:
        """Create the objects, the runner last, and let it own the others."""
        return facts.once(plan.job, self.find, lambda: self._submit(plan.job))

    def _submit(self, job: Job) -> Handle:
        found = kubenote.objects(job)
        asked = kubenote.asked(job, found)
        handle = self._handle(asked, job.id, job.directory)
        facts.write_script(job)
        _write_manifests(job, found)
        asked.write(job.directory)
        tracked = self._tracker.track(handle.token, job.directory, asked)
        try:
            self._tracker.require([tracked], REACH)
            self._create(job, tracked, found)
        except BaseException:
            self._undo(tracked)
            raise
        (job.directory / facts.SUBMITTED).write_text(f"{asked.namespace}/{asked.name}\n", encoding="utf-8")
        return handle

    def _create(self, job: Job, tracked: Tracked, found: Sequence[Manifest]) -> None:
        asked, stated = tracked.asked, kubenote.section(job)
        cluster = api(asked.place)
        if kubenote.shares_data(stated):
            kubeclaim.provide(cluster, kubenote.data(stated, asked.run), anew=stated.recreate_shared_data_pvc)
        *others, runner = found
        for each in others:
            cluster.create(each)
        made = cluster.create(runner)
        if runner["spec"].get("completionMode") and made["spec"].get("completionMode") != "Indexed":
            raise RefusedError(UNINDEXED)
        self._tracker.view(tracked).runners(asked.kind).add(made)
        reference = owned_by({**runner, "metadata": made["metadata"]})
        for each in others:
            cluster.patch(each["kind"], asked.namespace, each["metadata"]["name"], reference)

    def _undo(self, tracked: Tracked) -> None:
        """Leave nothing of a job that could not be handed over."""
        self._tracker.forget(tracked)
        with suppress(InfrastructureError):
            kubeend.remove(tracked.asked)
        (tracked.directory / kubenote.NOTE).unlink(missing_ok=True)

    def _handle(self, asked: Asked, token: str, directory: Path) -> Handle:
        return Handle(self.name, f"{asked.namespace}/{asked.name}/{token}", str(directory))

    def find(self, folders: Mapping[str, Path]) -> Mapping[str, Handle]:
        """By the runners' annotations, else by what was noted in the jobs' folders."""
        notes = {token: note for token, folder in folders.items() if (note := kubenote.read(folder))}
        known = set(_present(notes.values()))
        return {
            token: self._handle(asked, token, folders[token])
            for token, asked in notes.items()
            if token in known or facts.began(folders[token]) or facts.submitted(folders[token])
        }

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        """From what the watched lists of the session's namespaces say."""
        known = {handle: self._tracker.of(handle) for handle in handles}
        self._tracker.require([each for each in known.values() if each])
        return {
            handle: self._status(tracked) if tracked else kubeleft.status(Path(handle.directory))
            for handle, tracked in known.items()
        }

    def _status(self, tracked: Tracked) -> Status:
        if tracked.remains:
            return Status(tracked.remains.end.state)
        return kubestate.status(tracked, self._tracker.view(tracked))

    def watch(self, wake: Callable[[], None]) -> None:
        """`wake` is called when an object of a job changed, and when all that a pod left is here."""
        self._wake = wake

    def collect(self, handle: Handle) -> Outcome:
        """What the job left; removes its objects."""
        tracked, directory = self._tracker.of(handle), Path(handle.directory)
        if tracked is None:
            return kubeleft.collected(directory)
        self._tracker.require([tracked], REACH)
        self._last = tracked.asked.place
        remains = tracked.remains or self._freed(tracked)
        self._tracker.forget(tracked)
        if remains.end.state is State.LOST:
            _give_back(tracked)
        return kubeleft.outcome(directory, remains)

    def _freed(self, tracked: Tracked) -> Remains:
        """How a job ended, once its objects are gone; those of others go with them, since hundreds may end at once."""
        ended = {tracked: self._status(tracked)}
        _await_results(tracked)
        ended |= {each: last for each in self._tracker.beside(tracked) if (last := self._status(each)).state.over}
        found = {each: kubestate.remains(each, self._tracker.view(each), last) for each, last in ended.items()}
        for each, remains in found.items():
            kubeleft.note_codes(each.directory, remains)
        words = kubeend.free([each.asked for each in found if each.cancelled or not each.asked.keep])
        found = {each: replace(remains, notes=(*remains.notes, words)) for each, remains in found.items()}
        for each, remains in found.items():
            each.remains = remains
        return found[tracked]

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        """Let the models end and fetch what they wrote, then remove the pods; hard: remove them at once."""
        wanted = [tracked for handle in dict.fromkeys(handles) if (tracked := self._tracker.of(handle))]
        self._tracker.require(wanted, REACH)
        going = [each for each in wanted if not self._status(each).state.over]
        for each in going:
            each.cancelled, each.killed = True, hard
        if not hard:
            kubeend.end_models(self._tracker, going)
            for each in filter(lambda each: each.asked.collector, going):
                _await_results(each)
        kubeend.vanish([each.asked for each in going])
        for each in going:
            each.removed = True


def _await_results(tracked: Tracked) -> None:
    """All that the pods left is here, or will not come."""
    for followed in list(tracked.followed.values()):
        followed.end()
        followed.done.wait(SHORTLY if tracked.lost or tracked.killed else PATIENCE)
    wanted = {pod.name: tracked.folder(pod.rank) for pod in tracked.latest().values() if tracked.code(pod) is None}
    if tracked.asked.collector and wanted and not tracked.lost:
        with suppress(InfrastructureError):  # its absence is the verdict's matter
            kubeclaim.fetch(api(tracked.asked.place), tracked.asked, wanted)


def _give_back(tracked: Tracked) -> None:
    """Let the logs of pods that were taken away stand for their ranks, not those of the pods in their place."""
    for followed in list(tracked.followed.values()):
        followed.done.wait(PATIENCE)  # its pod is gone, so that this takes no time
    first = {pod.rank: pod for pod in reversed(tracked.earlier()) if pod.leaving}
    for rank, pod in first.items():
        kuberesults.give_back(tracked.folder(rank), pod.name, tracked.directory)


def _present(notes: Iterable[Asked]) -> Iterator[str]:
    """The ids of jobs whose runners are there, by one question for each run and namespace."""
    for asked in {(asked.group, asked.kind): asked for asked in notes}.values():
        for found in api(asked.place).listed(asked.kind, asked.namespace, label_selector=asked.selector)["items"]:
            yield str((found["metadata"].get("annotations") or {}).get(ID, ""))


def _write_manifests(job: Job, found: Sequence[Manifest]) -> None:
    """Put the manifests where `k8s.output_dir` says.

    Raises:
        InfrastructureError: nothing can be written there.
    """
    place = kubenote.section(job).output_dir
    if not place:
        return
    folder = job.project / place
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{found[-1]['metadata']['name']}.yaml").write_text(as_yaml(shown(found)), encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"k8s.output_dir: {folder}: {error.strerror}") from None


def _nothing() -> None:
    """Nobody wants to be woken."""
