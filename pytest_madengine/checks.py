"""Meets what the user got wrong before anything is collected."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pytest_madengine import baselines, outputs, runid
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.engine import rundir
from pytest_madengine.errors import UserError
from pytest_madengine.images import manifestfile, registry
from pytest_madengine.items import ModelItem
from pytest_madengine.jobs import compose
from pytest_madengine.models import discovery
from pytest_madengine.models.model import Model, Source
from pytest_madengine.reporting import perfcsv
from pytest_madengine.session import Session

OF_IMAGES = (
    *("build_only", "batch_manifest", "no_cache", "target_archs", "registry", "use_image", "build_jobs"),
    "build_on_compute",
)
"""Settings that mean nothing where models run without images."""


def refuse_workers(ours: Session) -> None:
    """Meet options that are for one process, where xdist starts several.

    Raises:
        pytest.UsageError: such an option is given.
    """
    if getattr(ours.config.option, "dist", "no") == "no":
        return
    if ours.settings.detach:
        raise pytest.UsageError("--madengine-detach: this one process submits the jobs; leave -n and --dist out")
    if ours.settings.dry_run:
        raise pytest.UsageError("--madengine-dry-run: this one process shows all models; leave -n and --dist out")


def check(ours: Session) -> None:
    """Meet the user's mistakes, and a place that nothing can be written to, before anything is collected."""
    _ = runid.of(ours.config)
    if ours.settings.resume and not ours.is_worker:
        ours.claim()
    _ = ours.context, ours.target, ours.tags, ours.credentials, ours.target_archs
    _check_images(ours)
    _check_destinations(ours)
    _check_reservation(ours)
    _check_keeping(ours)
    _check_cluster(ours)
    _check_expectations(ours)
    if not ours.config.option.collectonly:
        ours.require_secrets()
    if not (ours.config.option.collectonly or ours.settings.dry_run):
        rundir.check(ours.settings.start)
        if not ours.settings.build_only:
            perfcsv.check(ours.settings.output)
            outputs.check(ours)
            if not ours.is_worker:
                outputs.clear(ours)
            return
        manifestfile.check("--madengine-manifest-output", ours.settings.manifest_output)
        if ours.settings.summary_output:
            manifestfile.check("--madengine-summary-output", ours.settings.summary_output)


def check_items(items: Iterable[pytest.Item], ours: Session) -> None:
    """Meet models that could never run, before any is submitted; a card that completes itself may change till then.

    Raises:
        pytest.UsageError: all of them, each with its reason.
    """
    found = [item.variant.found for item in items if isinstance(item, ModelItem)]
    static = [each for each in found if each.source.file.name != discovery.DYNAMIC]
    faults = filter(None, (_fault(each.model, each.source, ours.jobs) for each in static))
    if text := "\n".join(dict.fromkeys(faults)):
        raise pytest.UsageError(text)


def _fault(model: Model, source: Source, jobs: compose.Session) -> str:
    try:
        compose.check_nodes(model, source, jobs)
    except UserError as error:
        return str(error)
    return ""


def _check_images(ours: Session) -> None:
    """Meet wishes for images that cannot be fulfilled.

    Raises:
        UserError: the target runs no images, the context names the only one there is, or a registry is no such thing.
    """
    settings = ours.settings
    for name in filter(None, (settings.registry, *(wish.registry for wish in ours.batch))):
        registry.checked(name)
    asked = [flag for flag in OF_IMAGES if getattr(settings, flag)]
    option = f"--madengine-{asked[0].replace('_', '-')}" if asked else ""
    if asked and not ours.containers:
        raise UserError(f"{option}: the target {ours.target} runs models without images; valid: --target=docker")
    if ours.context.image and (asked != ["build_only"] if asked else settings.manifest):
        raise UserError(
            f"{option or '--madengine-manifest'}: the context names an image for all models (docker_image, "
            "MAD_CONTAINER_IMAGE): leave one of the two out"
        )


def _check_destinations(ours: Session) -> None:
    """Meet builds on nodes whose images would reach nobody.

    Raises:
        UserError: no registry is named.
    """
    settings = ours.settings
    if not settings.build_on_compute or settings.registry:
        return
    stated = ours.batch and all(wish.registry or wish.registry_image for wish in ours.batch if wish.build_new)
    if not stated:
        raise UserError(
            "--madengine-build-on-compute: no registry is named, and images leave their nodes only through "
            "one; valid: --madengine-registry, or registry or registry_image of each model of the batch file"
        )


def _check_expectations(ours: Session) -> None:
    """Meet references and earlier runs that cannot be read, and images that cannot be compared.

    Raises:
        UserError: such things are asked for.
    """
    if ours.settings.ab:
        baselines.require_statistics("--madengine-ab")
    if ours.settings.ab and not ours.containers:
        raise UserError(f"--madengine-ab: the target {ours.target} runs models without images; valid: --target=docker")
    if not ours.config.option.collectonly:
        _ = ours.expectations


def _check_reservation(ours: Session) -> None:
    """Meet a reservation that nobody would look at.

    Raises:
        UserError: the target is another one than SLURM.
    """
    if ours.settings.reservation and ours.target != "slurm" and not ours.settings.build_on_compute:
        raise UserError(
            f"--madengine-reservation: the target is {ours.target}, which has no reservations; valid: --target=slurm"
        )


def _check_keeping(ours: Session) -> None:
    """Meet a wish to keep what another target than Kubernetes never keeps.

    Raises:
        UserError: the target is no Kubernetes.
    """
    if ours.settings.keep_alive and ours.target != compose.PODS:
        raise UserError(
            f"--madengine-keep-alive: the target is {ours.target}, where nothing of a run stays; valid: --target=k8s"
        )


def _check_cluster(ours: Session) -> None:
    """Meet a cluster that nobody described, before an image is built for it; it is not asked for anything.

    Raises:
        UserError: it is not.
    """
    asleep = ours.config.option.collectonly or ours.settings.dry_run or ours.settings.build_only
    if ours.target == compose.PODS and not asleep:
        from pytest_madengine.backends import kubeapi, kubenote

        kubeapi.api(kubenote.place(ours.context.pods or Kubernetes()))
