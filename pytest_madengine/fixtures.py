"""The fixtures of model items, and of ordinary tests that ask for a model.

Each may be overridden in a conftest. Importing this module must stay cheap: it is loaded into every pytest run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pytest

from pytest_madengine import options
from pytest_madengine.errors import InfrastructureError, MadengineError

if TYPE_CHECKING:
    from pytest_madengine.attempt import Attempt
    from pytest_madengine.backends.base import Backend
    from pytest_madengine.context.context import Context
    from pytest_madengine.images.image import Image
    from pytest_madengine.images.supply import Want
    from pytest_madengine.items import Variant
    from pytest_madengine.jobs.job import Job
    from pytest_madengine.models.model import Model
    from pytest_madengine.results.result import Result
    from pytest_madengine.session import Session

P = ParamSpec("P")
R = TypeVar("R")
ATTEMPT: pytest.StashKey[Attempt | None] = pytest.StashKey()
AHEAD: pytest.StashKey[Attempt | None] = pytest.StashKey()
"""An attempt whose job ran before its item's protocol begins."""
VARIANT: pytest.StashKey[Variant] = pytest.StashKey()
"""Only model items have one."""
PROPERTY = "madengine_result"
"""A Result travels as JSON text under this name in a report's `user_properties`."""


def plain_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Show our own errors as they are, without a traceback."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except MadengineError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None

    return wrapper


@pytest.fixture(scope="session")
@plain_errors
def madengine_context(request: pytest.FixtureRequest) -> Context:
    """The merged configuration."""
    return _session(request).context


@pytest.fixture(scope="session")
@plain_errors
def backend(request: pytest.FixtureRequest) -> Backend:
    """Where the session's models run."""
    ours = _session(request)
    return ours.backends[ours.target]


@pytest.fixture
@plain_errors
def model(request: pytest.FixtureRequest) -> Model:
    """The model card of this item, or the one that `@pytest.mark.madengine("name")` names."""
    attempt = attempt_of(request.node)
    card = attempt.model if attempt.prepared else attempt.complete()
    if reason := unwanted(attempt.want, attempt.session):
        pytest.skip(reason)
    return card


@pytest.fixture
@plain_errors
def image(request: pytest.FixtureRequest, model: Model, backend: Backend) -> Image | None:
    """The image that the model runs in, built or pulled; None where the backend needs none."""
    attempt = attempt_of(request.node)
    if attempt.prepared or attempt.past:
        if attempt.trouble:
            raise attempt.trouble
        made = attempt.image
    else:
        attempt.model = model
        with attempt.session.display.shown():
            made = attempt.make_image() if attempt.needs_image(backend) else None
    for text in attempt.session.supply.warnings(attempt.want) if made else ():
        request.node.warn(pytest.PytestWarning(text))
    return made


@pytest.fixture
@plain_errors
def job(request: pytest.FixtureRequest, model: Model, image: Image | None) -> Job:
    """Everything that the backend needs to run the model."""
    attempt = attempt_of(request.node)
    _warn_of_missing_nodes(request.node, model, attempt)
    if attempt.prepared and attempt.trouble:
        raise attempt.trouble
    if attempt.prepared and attempt.job:
        return attempt.job
    attempt.model, attempt.image = model, image
    return composed(request.node, attempt)


@pytest.fixture
@plain_errors
def result(request: pytest.FixtureRequest, job: Job, backend: Backend) -> Result:
    """What running the model gave.

    A model that failed fails its test after the test's own assertions; a failed machine or engine is an error here.
    """
    from pytest_madengine.results.result import FailureClass

    if options.given(request.config, "setuponly"):
        pytest.skip("--setup-only: the model was not run")
    attempt = attempt_of(request.node)
    if attempt.session.settings.build_only:
        pytest.skip("--madengine-build-only: the model was not run")
    rerun = getattr(request.node, "execution_count", 1) > 1  # pytest-rerunfailures counts there
    done = attempt.result if attempt.prepared else None
    given = done or attempt.run_shared(job, attempt.backend(backend), afresh=rerun)
    request.node.ihook.pytest_madengine_result(item=request.node, result=given)
    if given.failed and given.failure is FailureClass.INFRASTRUCTURE:
        raise InfrastructureError(given.explanation())
    return given


def composed(item: pytest.Item, attempt: Attempt) -> Job:
    """The job of an attempt with what sites change in it."""
    made = attempt.compose(attempt.image)
    changed: Job | None = item.ihook.pytest_madengine_job(item=item, job=made)
    return changed or made


def attempt_of(item: pytest.Item, *, ahead: bool = False) -> Attempt:
    """The item's attempt, begun if need be.

    Args:
        item: a model's item, or a test that names a model.
        ahead: whether its job is to run before its protocol begins.

    Raises:
        MadengineError: it names no model, or not exactly one.
    """
    from pytest_madengine import session
    from pytest_madengine.attempt import Attempt

    attempt = item.stash.get(ATTEMPT, None)
    if attempt is None:
        ours = session.of(item.config)
        variant = item.stash.get(VARIANT, None) or _marked(item, ours)
        attempt = item.stash[ATTEMPT] = Attempt(item.nodeid, variant, ours, ahead=ahead)
    return attempt


def _marked(item: pytest.Item, ours: Session) -> Variant:
    """The one card that the item's marker names, with the marker's arguments."""
    from pytest_madengine.errors import UserError
    from pytest_madengine.items import Variant
    from pytest_madengine.models import selection

    mark = item.get_closest_marker("madengine")
    if mark is None or len(mark.args) != 1 or mark.kwargs:
        raise UserError(f'{item.nodeid} asks for a model: mark it with @pytest.mark.madengine("name")')
    tags = selection.parse([str(mark.args[0])])
    if len(tags) != 1:
        raise UserError(f"{item.nodeid}: {mark.args[0]!r} names {len(tags)} models; name one")
    named = [selection.Named(each.model.name, each.model.tags) for each in ours.catalogue]
    (tag,) = selection.resolve(tags, named)
    if lost := selection.unmatched([tag], named):
        raise UserError(f"{item.nodeid}: {lost}".replace("--madengine-tags", "@pytest.mark.madengine"))
    exact = [each for each in ours.catalogue if each.model.name == tag.selector]
    found = exact or [each for each, name in zip(ours.catalogue, named, strict=True) if tag.matches(name)]
    if len(found) > 1:
        names = ", ".join(each.model.name for each in found)
        raise UserError(f"{item.nodeid}: {mark.args[0]!r} names {len(found)} models ({names}); name one")
    return Variant(found[0], args=tag.arguments)


def _warn_of_missing_nodes(item: pytest.Item, card: Model, attempt: Attempt) -> None:
    """A single-node target runs a multi-node card on its one node, as the wiki says; the row says nnodes 1."""
    nodes = attempt.session.context.distribution(card).nnodes or 1
    if nodes > 1 and not attempt.session.jobs.remote:
        item.warn(pytest.PytestWarning(f"{card.name} asks for {nodes} nodes and runs on one: this target has no more"))


def unwanted(want: Want, ours: Session) -> str:
    """Why a model is not to run on this machine, or an image not to be made for it; '' where it is."""
    from pytest_madengine.context.machine import architecture_matches, unfit

    settings, here = ours.settings, ours.machine
    if not settings.build_only and (reason := unfit(here, *want.made_for)):
        return reason
    arch = want.architecture or here.architecture
    name = "" if settings.disable_skip_gpu_arch else architecture_matches(arch, want.model.skip_gpu_arch)
    whose = "the image is for" if want.architecture else "this machine has"
    return f"skip_gpu_arch lists {name}, {whose} {arch}" if name else ""


def _session(request: pytest.FixtureRequest) -> Session:
    from pytest_madengine import session

    return session.of(request.config)
