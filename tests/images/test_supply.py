"""Each model gets the image that is meant for it, from a real engine and real registries."""

from __future__ import annotations

import functools
import json
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.context.context import Context
from pytest_madengine.engine.board import Phase, Progress
from pytest_madengine.errors import BuildError, FaultsError, InfrastructureError, PushError, UserError
from pytest_madengine.images import engine, manifest, manifestcontent
from pytest_madengine.images.batch import BatchEntry
from pytest_madengine.images.build import Builder
from pytest_madengine.images.image import Image
from pytest_madengine.images.manifest import Entry
from pytest_madengine.images.registry import Registries, push_name, repository
from pytest_madengine.images.supply import Orders, Supply, Want
from pytest_madengine.models.model import Model, Source
from pytest_madengine.secrets import NO_SECRETS, Secret
from tests.backends.support import BASE_IMAGE, Spy, read, write
from tests.engines.registries import LOGIN, Images, Registry
from tests.images.test_registry import NOBODY, Pauses, entry, wrong

LABEL = "madengine-supply-test"
SYSTEM = "MAD_SYSTEM_GPU_ARCHITECTURE"


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def wish(name: str, *, build_new: bool = True, registry: str = "", registry_image: str = "") -> BatchEntry:
    return BatchEntry(3, 7, name, build_new, registry, registry_image)


def phases(told: list[Progress]) -> list[tuple[Phase, str]]:
    """What was done, each once, without the steps of builds."""
    return list(dict.fromkeys((progress.phase, progress.detail) for progress in told))


class Visit:
    """One session of the plugin, which remembers nothing of those before.

    Attributes:
        records: what its builds leave.
        told: what it said that it does.
    """

    def __init__(
        self, records: Path, orders: Orders, context: Mapping[str, Any] | None = None, known: Mapping[str, Any] = {}
    ) -> None:
        self.records = records
        self.told: list[Progress] = []
        self.registries = Registries(known, Pauses())
        builder = Builder(records, self.registries)
        self.supply = Supply(orders, Context(**context or {}), {}, known, builder, self.registries)

    def image(self, want: Want) -> Image:
        return self.supply.image(want, self.told.append)

    def refusal(self, want: Want, kind: type[Exception] = InfrastructureError) -> str:
        with pytest.raises(kind) as caught:
            self.image(want)
        assert caught.type is kind
        return str(caught.value)

    @property
    def done(self) -> list[tuple[Phase, str]]:
        return phases(self.told)

    @property
    def transfers(self) -> list[tuple[Phase, str]]:
        return [each for each in self.done if each[0] in (Phase.PULLING, Phase.PUSHING)]


@dataclass
class Project:
    """A project of one model, called `name` like its Dockerfile; images that come of it go with it."""

    folder: Path

    def __post_init__(self) -> None:
        self.name = f"supply-{secrets.token_hex(5)}"
        self.visits: list[Visit] = []
        self.dockerfile()

    def dockerfile(self, *lines: str, base: str = "scratch", kind: str = "ubuntu") -> Path:
        """Write a Dockerfile of the model; `kind` tells it apart from others. Its image is soon sent."""
        text = "\n".join([f"FROM {base}", f"LABEL {LABEL}={self.name}", "COPY . /here", *lines, ""])
        return write(self.folder / f"docker/{self.name}.{kind}.Dockerfile", text)

    def model(self, **fields: Any) -> Model:
        return Model(**{"name": self.name, "dockerfile": f"docker/{self.name}", **fields})

    def want(self, model: Model | None = None, **fields: Any) -> Want:
        source = Source(self.folder / "models.json", 4, self.folder)
        return Want(model or self.model(), source, **fields)

    def visit(self, context: Mapping[str, Any] | None = None, known: Mapping[str, Any] = {}, **orders: Any) -> Visit:
        """Another session."""
        records = self.folder / f"records-{len(self.visits)}"
        self.visits.append(Visit(records, Orders(**orders), context, known))
        return self.visits[-1]

    def listed(self, image: Image | None, error: str = "") -> Want:
        """What a manifest says of the model, written and read again."""
        written = manifestcontent.content([Entry("k", self.model(), image, error)], context={}, masker=NO_SECRETS)
        (listed,) = manifest.parsed(json.loads(json.dumps(written)), str).entries
        return self.want(listed.card, entry=listed)

    def images(self) -> list[str]:
        return docker("images", "--quiet", f"--filter=label={LABEL}={self.name}").split()

    def forget(self) -> None:
        """Let the engine have none of the images any more."""
        if found := self.images():
            docker("rmi", "--force", *found)
        assert self.images() == []

    def close(self) -> None:
        for visit in self.visits:
            visit.registries.close()
        self.forget()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A user's project; the user is logged in nowhere."""
    for name in ("users", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "users"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Project(tmp_path / "project")


@pytest.fixture
def kept(project: Project, docker_engine: str) -> Iterator[Project]:
    """The project, on a machine with an engine."""
    yield project
    project.close()


@pytest.fixture
def mortal_registry(registry_program: str, tmp_path: Path) -> Iterator[Registry]:
    """A registry that a test may stop."""
    (tmp_path / "mortal").mkdir()
    with Registry(registry_program, tmp_path / "mortal") as mortal:
        yield mortal


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an engine."""
    monkeypatch.setenv("DOCKER_HOST", "nowhere://engine")
    monkeypatch.setattr(engine, "client", functools.cache(engine.client.__wrapped__))
    with pytest.raises(InfrastructureError, match="no Docker engine can be reached"):
        engine.client()


def stored(registry: Registry, name: str) -> list[str]:
    """What a registry was asked to keep of a repository."""
    return [line for line in read(registry.folder / "log").splitlines() if '"PUT ' in line and f"/{name}/" in line]


def tags(registry: Registry, name: str) -> set[str]:
    """The tags of a repository, as the registry's own files say."""
    folder = registry.folder / f"data/docker/registry/v2/repositories/{name}/_manifests/tags"
    return {path.name for path in folder.iterdir()}


@pytest.mark.requires_registry
class TestBuilt:
    @pytest.mark.parametrize("way", ["card", "context"])
    def test_nodes_of_pods_may_have_it_from_here(self, kept: Project, way: str) -> None:
        section = {"k8s": {"image_pull_policy": "IfNotPresent"}}
        visit = kept.visit(section if way == "context" else {}, on_nodes=True, in_pods=True)
        image = visit.image(kept.want(kept.model(**(section if way == "card" else {}))))
        assert (image.registry_image, image.archive, bool(image.content)) == ("", "", True)

    def test_it_stays_on_this_machine(self, kept: Project) -> None:
        kept.dockerfile("ENV ROCM_PATH=/opt/rocm-9")
        visit = kept.visit()
        image = visit.image(kept.want())
        assert image.reference == f"ci-{kept.name}.ubuntu:{image.content[:16]}"
        assert image.digest == docker("inspect", "--format={{.Id}}", image.reference)
        assert image.rocm_root == "/opt/rocm-9"
        assert (image.registry_image, image.registry_digest) == ("", "")
        assert visit.done == [(Phase.BUILDING, f"docker/{kept.name}.ubuntu.Dockerfile")]

    @pytest.mark.parametrize("in_pods", [False, True])
    def test_an_open_registry_gets_it(self, kept: Project, registry: Registry, *, in_pods: bool) -> None:
        visit = kept.visit(registry=f"{registry.address}/team", in_pods=in_pods)
        image = visit.image(kept.want())
        assert image.reference.startswith("ci-")
        assert image.registry_image == f"{registry.address}/team/{image.reference}"
        assert image.registry_digest == kept.visit().registries.digest(image.registry_image)
        assert visit.transfers == [(Phase.PUSHING, image.registry_image)]

    def test_a_private_registry_gets_it_in_the_repository_of_its_login(
        self, kept: Project, private_registry: Registry
    ) -> None:
        place = private_registry.address
        known = {place: {**entry(), "repository": f"all/{kept.name}"}}
        visit = kept.visit(known=known, registry=place)
        image = visit.image(kept.want())
        assert image.registry_image == f"{place}/all/{kept.name}:{image.reference.replace(':', '-')}"
        assert image.registry_digest == kept.visit(known=known).registries.digest(image.registry_image)

    def test_what_the_registry_has_is_not_pushed_again(self, kept: Project, registry: Registry) -> None:
        first = kept.visit(registry=registry.address).image(kept.want())
        pushed = stored(registry, f"ci-{kept.name}.ubuntu")
        assert pushed
        visit = kept.visit(registry=registry.address)
        again = visit.image(kept.want())
        assert visit.done == []
        assert stored(registry, f"ci-{kept.name}.ubuntu") == pushed
        assert (again.registry_image, again.registry_digest) == (first.registry_image, first.registry_digest)

    def test_what_the_registry_lost_is_pushed_again(
        self, kept: Project, mortal_registry: Registry, tmp_path: Path
    ) -> None:
        first = kept.visit(registry=mortal_registry.address).image(kept.want())
        mortal_registry.stop()
        (tmp_path / "mortal/data").rename(tmp_path / "lost")
        mortal_registry.start()
        visit = kept.visit(registry=mortal_registry.address)
        again = visit.image(kept.want())
        assert visit.transfers == [(Phase.PUSHING, first.registry_image)]
        assert kept.visit().registries.digest(first.registry_image) == again.registry_digest

    def test_a_name_that_was_given_to_another_image_since_is_taken_back(
        self, kept: Project, registry: Registry, images: Images
    ) -> None:
        first = kept.visit(registry=registry.address).image(kept.want())
        other = kept.visit().registries.push(images.make(), first.registry_image)
        visit = kept.visit(registry=registry.address)
        again = visit.image(kept.want())
        assert visit.transfers == [(Phase.PUSHING, first.registry_image)]
        assert again.registry_digest == first.registry_digest != other
        assert visit.registries.digest(first.registry_image) == first.registry_digest

    def test_another_registry_is_pushed_to_by_itself(
        self, kept: Project, registry: Registry, mortal_registry: Registry
    ) -> None:
        kept.visit(registry=registry.address).image(kept.want())
        visit = kept.visit(registry=mortal_registry.address)
        image = visit.image(kept.want())
        assert visit.done == [(Phase.PUSHING, f"{mortal_registry.address}/{image.reference}")]
        assert tags(mortal_registry, f"ci-{kept.name}.ubuntu") == {image.content[:16]}

    def test_a_registry_that_is_down_fails_the_push_until_it_is_back(
        self, kept: Project, mortal_registry: Registry
    ) -> None:
        mortal_registry.stop()
        visit = kept.visit(registry=mortal_registry.address)
        with pytest.raises(PushError, match="connection refused") as caught:
            visit.image(kept.want())
        local = docker("images", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference=ci-{kept.name}.ubuntu")
        assert caught.value.registry_image == f"{mortal_registry.address}/{local}"
        mortal_registry.start()
        later = kept.visit(registry=mortal_registry.address)
        image = later.image(kept.want())
        assert later.done == [(Phase.PUSHING, f"{mortal_registry.address}/{local}")]
        assert image.registry_digest.startswith("sha256:")

    def test_a_registry_that_goes_down_after_a_push_fails_the_next_session(
        self, kept: Project, mortal_registry: Registry
    ) -> None:
        first = kept.visit(registry=mortal_registry.address).image(kept.want())
        mortal_registry.stop()
        with pytest.raises(PushError, match="connection refused") as caught:
            kept.visit(registry=mortal_registry.address).image(kept.want())
        assert caught.value.registry_image == first.registry_image

    def test_a_login_that_is_refused_fails_the_push(self, kept: Project, private_registry: Registry) -> None:
        place = private_registry.address
        visit = kept.visit(known={place: wrong(entry())}, registry=place)
        with pytest.raises(PushError, match=f"docker login failed.*; the login is that of '{place}'") as caught:
            visit.image(kept.want())
        assert caught.value.registry_image.startswith(f"{place}/ci-{kept.name}.ubuntu:")
        assert "planted" not in str(caught.value)
        image = kept.visit(known={place: entry()}, registry=place).image(kept.want())
        assert image.registry_image == caught.value.registry_image

    def test_a_build_that_fails_is_not_pushed(self, kept: Project, registry: Registry) -> None:
        kept.dockerfile("RUN false", base=BASE_IMAGE)
        visit = kept.visit(registry=registry.address)
        assert "RUN false" in visit.refusal(kept.want(), BuildError)
        assert visit.transfers == []

    def test_base_images_are_pulled_with_the_login_of_the_session(
        self, kept: Project, private_registry: Registry, images: Images
    ) -> None:
        local, place = images.make(), private_registry.address
        base = push_name(place, local, {})
        kept.visit(known={place: entry()}).registries.push(local, base)
        images.remove()
        kept.dockerfile(base=base)
        assert "no basic auth credentials" in kept.visit().refusal(kept.want())
        visit = kept.visit(known={place: entry()})
        image = visit.image(kept.want())
        assert visit.transfers == [(Phase.PULLING, base)]
        assert image.base == base
        assert image.base_digest == visit.registries.digest(base)


@pytest.mark.requires_registry
class TestNamed:
    @pytest.fixture
    def remote(self, kept: Project, registry: Registry) -> str:
        """An image that only a registry has."""
        kept.dockerfile("ENV ROCM_HOME=/opt/named")
        image = kept.visit(registry=registry.address).image(kept.want())
        kept.forget()
        return image.registry_image

    @pytest.mark.parametrize("way", ["option", "docker_image", "MAD_CONTAINER_IMAGE"])
    def test_one_for_all_models(self, kept: Project, remote: str, way: str) -> None:
        visit = kept.visit(use_image=remote) if way == "option" else kept.visit({way: remote})
        image = visit.image(kept.want(kept.model(dockerfile="", docker_image="none/other:1")))
        assert image == Image(remote, digest=docker("inspect", "--format={{.Id}}", remote), rocm_root="/opt/named")
        assert visit.done == [(Phase.PULLING, remote)]
        assert not visit.supply.builds()

    def test_the_option_wins_over_the_context(self, kept: Project, remote: str) -> None:
        assert kept.visit({"docker_image": "none/other:1"}, use_image=remote).image(kept.want()).reference == remote

    def test_one_that_is_here_is_not_pulled(self, kept: Project) -> None:
        visit = kept.visit(use_image=BASE_IMAGE)
        assert visit.image(kept.want()).reference == BASE_IMAGE
        assert visit.done == []

    @pytest.mark.parametrize("orders", [{"use_image": "auto"}, {}])
    @pytest.mark.parametrize("field", ["docker_image", "DOCKER_IMAGE_NAME"])
    def test_auto_is_the_one_of_the_card(self, kept: Project, remote: str, orders: dict[str, Any], field: str) -> None:
        fields = {"docker_image": remote} if field == "docker_image" else {"env_vars": {field: remote}}
        visit = kept.visit({} if orders else {"docker_image": "auto"}, **orders)
        image = visit.image(kept.want(kept.model(**fields)))
        assert (image.reference, image.rocm_root) == (remote, "/opt/named")

    def test_a_private_one_is_pulled_with_the_login_of_the_session(
        self, kept: Project, private_registry: Registry
    ) -> None:
        place = private_registry.address
        remote = kept.visit(known={place: entry()}, registry=place).image(kept.want()).registry_image
        kept.forget()
        assert "no basic auth credentials" in kept.visit(use_image=remote).refusal(kept.want())
        assert kept.visit(known={place: entry()}, use_image=remote).image(kept.want()).reference == remote


class TestNamesNothing:
    """What is decided without an engine."""

    pytestmark = pytest.mark.usefixtures("no_engine")

    def test_auto_without_an_image_in_the_card(self, project: Project) -> None:
        said = project.visit(use_image="auto").refusal(project.want(), UserError)
        assert said == (
            f"{project.folder}/models.json:4: --madengine-use-image=auto, and {project.name} names no image: "
            "set docker_image or env_vars.DOCKER_IMAGE_NAME in its card"
        )

    def test_a_card_that_names_an_image_builds_its_own_all_the_same(self, project: Project) -> None:
        model = project.model(docker_image="a/b:1", env_vars={"DOCKER_IMAGE_NAME": "c/d:1"})
        assert project.visit().supply.named(project.want(model)) == ""

    @pytest.mark.parametrize("context", [{"docker_image": "none/one:1"}, {}])
    def test_a_model_that_starts_its_own_containers_needs_but_a_name(
        self, project: Project, context: dict[str, str]
    ) -> None:
        visit = project.visit(context, use_image="" if context else "none/one:1")
        assert visit.image(project.want(self_managed=True)) == Image("none/one:1")
        assert visit.told == []

    @pytest.mark.parametrize("use_image", ["", "auto"])
    @pytest.mark.parametrize("fields", [{"docker_image": "a/b:1"}, {"env_vars": {"DOCKER_IMAGE_NAME": "a/b:1"}}])
    def test_its_own_name_will_do(self, project: Project, use_image: str, fields: dict[str, Any]) -> None:
        visit = project.visit(use_image=use_image)
        want = project.want(project.model(**fields), self_managed=True)
        assert visit.supply.concerns(want)
        assert visit.image(want) == Image("a/b:1")

    def test_the_contexts_variable_wins_over_its_own_name(self, project: Project) -> None:
        variable = {"DOCKER_IMAGE_NAME": "a/b:2"}
        model = project.model(docker_image="a/b:1", env_vars={"DOCKER_IMAGE_NAME": "a/b:0"})
        visit = project.visit({"env_vars": variable})
        assert visit.image(project.want(model, self_managed=True)) == Image("a/b:2")
        assert visit.supply.named(project.want(model)) == ""
        assert project.visit({"env_vars": variable}, use_image="c/d:1").image(
            project.want(model, self_managed=True)
        ) == Image("c/d:1")

    def test_a_manifest_gives_it_the_name_alone(self, project: Project) -> None:
        image = Image("none/x@sha256:ab", content="c", registry_image="none/x:1", registry_digest="sha256:ab")
        listed = project.listed(image).entry
        assert project.visit().image(project.want(entry=listed, self_managed=True)) == image

    def test_nobody_names_one(self, project: Project) -> None:
        visit, want = project.visit(), project.want(self_managed=True)
        assert not visit.supply.concerns(want)
        assert visit.refusal(want, UserError) == (
            f"{project.folder}/models.json:4: {project.name} starts its own containers and names no image: set "
            "env_vars.DOCKER_IMAGE_NAME, or give --madengine-use-image or --madengine-registry"
        )

    def test_an_entry_of_a_manifest_without_an_image(self, project: Project) -> None:
        said = project.visit().refusal(project.listed(None, "its build broke"), BuildError)
        assert said == f"the manifest has no image of {project.name}: its build broke"

    def test_no_dockerfile_in_the_card(self, project: Project) -> None:
        with pytest.raises(UserError, match=rf"models\.json:4: {project.name}\.dockerfile is missing; --target=host"):
            project.visit().supply.recipe(project.want(project.model(dockerfile="")))

    def test_an_image_that_no_pod_could_have_is_not_built(self, project: Project) -> None:
        said = project.visit(on_nodes=True, in_pods=True).refusal(project.want(), UserError)
        place = f"{project.folder}/models.json:4: {project.name}"
        assert said.startswith(
            f"{place}: its image would be on this machine alone, and pods pull theirs; valid: --maden"
        )

    def test_no_dockerfile_in_the_card_of_a_model_that_runs_on_nodes(self) -> None:
        with pytest.raises(UserError, match=r"missing; --target=host, or slurm\.container_runtime: none, needs none"):
            supply(on_nodes=True).recipe(card(dockerfile=""))

    def test_a_build_context_that_is_no_folder(self, project: Project) -> None:
        with pytest.raises(FaultsError) as caught:
            project.visit().supply.recipe(project.want(project.model(dockercontext="nowhere")))
        (fault,) = caught.value.faults
        assert fault.where == f"{project.folder}/models.json:4: {project.name}.dockercontext"
        assert fault.found == f"{project.folder}/nowhere is no folder"

    def test_a_credential_that_nobody_has(self, project: Project) -> None:
        with pytest.raises(UserError, match=r"cred 'NONE' has no entry in credential\.json"):
            project.visit().supply.recipe(project.want(project.model(cred="NONE")))


@pytest.mark.requires_registry
class TestSelfManaged:
    def test_a_registry_gets_its_image_whatever_the_card_names(self, kept: Project, registry: Registry) -> None:
        visit = kept.visit(registry=registry.address)
        want = kept.want(kept.model(docker_image="none/x:1"), self_managed=True)
        image = visit.image(want)
        assert visit.supply.concerns(want)
        assert image.registry_image == f"{registry.address}/{image.reference}"
        assert image.registry_digest == visit.registries.digest(image.registry_image)

    def test_one_that_a_batch_takes_from_a_registry_stays_there(self, kept: Project, registry: Registry) -> None:
        built = kept.visit(registry=registry.address).image(kept.want())
        kept.forget()
        taken = wish(kept.name, build_new=False, registry_image=built.registry_image)
        visit = kept.visit(batch=[taken])
        assert visit.image(kept.want(self_managed=True)).registry_digest == built.registry_digest
        assert (visit.done, kept.images()) == ([], [])


@pytest.mark.requires_registry
class TestBatch:
    def test_its_registry_counts_more_than_that_of_all(self, kept: Project, registry: Registry) -> None:
        visit = kept.visit(registry=NOBODY, batch=[wish(kept.name, registry=registry.address)])
        image = visit.image(kept.want())
        assert image.registry_image == f"{registry.address}/{image.reference}"
        assert visit.transfers == [(Phase.PUSHING, image.registry_image)]

    def test_the_name_in_the_registry_is_taken_as_it_is(self, kept: Project, registry: Registry) -> None:
        remote = f"{registry.address}/mine/{kept.name}:v1"
        image = kept.visit(batch=[wish(kept.name, registry=NOBODY, registry_image=remote)]).image(kept.want())
        assert image.registry_image == remote
        assert image.registry_digest == kept.visit().registries.digest(remote)

    @pytest.mark.parametrize(("tag", "prefix"), [(":v1", "v1-"), ("", "")])
    def test_variants_of_one_name_have_tags_of_their_own(
        self, kept: Project, registry: Registry, tag: str, prefix: str
    ) -> None:
        paths = {
            kind: kept.dockerfile(f"ARG {SYSTEM}", f"ENV KIND={kind}${SYSTEM}", kind=kind) for kind in ("a.amd", "b")
        }
        remote = f"{registry.address}/mine/{kept.name}"
        visit = kept.visit(batch=[wish(kept.name, registry_image=remote + tag)])
        variants: list[dict[str, Any]] = [
            {"dockerfile": paths["a.amd"]},
            {"dockerfile": paths["b"]},
            {"dockerfile": paths["b"], "architecture": "gfx942"},
            {"dockerfile": paths["b"], "architecture": "gfx90a:sramecc+:xnack-"},
        ]
        made = [visit.image(kept.want(**variant)) for variant in variants]
        of = f"{remote}:{prefix}ci-{kept.name}"
        assert [image.registry_image for image in made] == [
            f"{of}.a.amd",
            f"{of}.b",
            f"{of}.b-gfx942",
            f"{of}.b-gfx90a-sramecc-xnack-",
        ]
        assert [kept.visit().registries.digest(image.registry_image) for image in made] == [
            image.registry_digest for image in made
        ]
        assert len({image.registry_digest for image in made}) == 4

    def test_one_name_is_for_one_image(self, kept: Project, registry: Registry) -> None:
        for kind in ("one", "other"):
            kept.dockerfile(f"ENV KIND={kind}", kind=kind)
        remote = f"{registry.address}/mine/{kept.name}:v1"
        batch = [wish(name, registry_image=remote) for name in ("a", "b", "c")]
        a, b, c = (
            kept.want(kept.model(name=name, dockerfile=f"docker/{kept.name}.{kind}"))
            for name, kind in (("a", "one"), ("b", "one"), ("c", "other"))
        )
        visit = kept.visit(batch=batch)
        first = visit.image(a)
        assert visit.image(b) == first
        said = visit.refusal(c, UserError)
        assert said.startswith(f"{remote} is to hold two images, ci-{kept.name}.other:")
        assert visit.transfers == [(Phase.PUSHING, remote)]
        assert visit.registries.digest(remote) == first.registry_digest
        later = kept.visit(batch=batch).image(c)
        assert later.registry_digest not in ("", first.registry_digest)

    def test_an_architecture_alone_is_a_tag(self, kept: Project, registry: Registry) -> None:
        remote = f"{registry.address}/mine/{kept.name}"
        visit = kept.visit(batch=[wish(kept.name, registry_image=f"{remote}:v1")])
        made = visit.image(kept.want(architecture="gfx942"))
        assert made.registry_image == f"{remote}:v1-gfx942"
        later = kept.visit(batch=[wish(kept.name, build_new=False, registry_image=f"{remote}:v1")])
        assert later.image(kept.want(architecture="gfx942")).registry_digest == made.registry_digest

    @pytest.mark.parametrize("stated", ["registry_image", "registry", "of_all"])
    @pytest.mark.parametrize("orders", [{"build_only": True}, {}])
    def test_what_a_registry_has_is_pulled_where_it_is_to_run(
        self, kept: Project, registry: Registry, stated: str, orders: dict[str, Any]
    ) -> None:
        kept.dockerfile("ENV ROCM_PATH=/opt/taken")
        built = kept.visit(registry=registry.address).image(kept.want())
        kept.forget()
        fields = {"registry_image": built.registry_image} if stated == "registry_image" else {}
        fields |= {"registry": registry.address} if stated == "registry" else {}
        of_all = registry.address if stated == "of_all" else ""
        taken = wish(kept.name, build_new=False, **fields)
        visit = kept.visit(registry=of_all, batch=[taken], **orders)
        image = visit.image(kept.want())
        assert image == Image(
            f"{repository(built.registry_image)}@{built.registry_digest}",
            digest="" if orders else built.digest,
            rocm_root="" if orders else "/opt/taken",
            registry_image=built.registry_image,
            registry_digest=built.registry_digest,
        )
        assert visit.done == ([] if orders else [(Phase.PULLING, built.registry_image)])
        assert bool(kept.images()) is not bool(orders)

    @pytest.mark.parametrize("stated", ["registry_image", "registry"])
    def test_what_no_registry_has_is_not_built_instead(self, kept: Project, registry: Registry, stated: str) -> None:
        place = {"registry": registry.address, "registry_image": f"{registry.address}/none/{kept.name}:1"}
        visit = kept.visit(batch=[wish(kept.name, build_new=False, **{stated: place[stated]})])
        assert "manifest unknown" in visit.refusal(kept.want())
        assert visit.done == []

    def test_a_card_needs_no_dockerfile_for_what_a_registry_has(self, kept: Project, registry: Registry) -> None:
        remote = kept.visit(registry=registry.address).image(kept.want()).registry_image
        visit = kept.visit(batch=[wish(kept.name, build_new=False, registry_image=remote)])
        want = kept.want(kept.model(dockerfile=""))
        assert visit.image(want).registry_image == remote
        assert visit.supply.warnings(want) == []

    def test_what_is_here_is_taken_as_it_is(self, kept: Project) -> None:
        built = kept.visit().image(kept.want())
        visit = kept.visit(batch=[wish(kept.name, build_new=False)])
        image = visit.image(kept.want())
        assert (image.reference, image.digest, image.content) == (built.reference, built.digest, built.content)
        assert (image.build_duration, visit.done) == (0, [])

    def test_what_is_not_here_as_it_is_now_is_an_error(self, kept: Project) -> None:
        kept.visit().image(kept.want())
        kept.dockerfile("ENV CHANGED=1")
        visit = kept.visit(batch=[wish(kept.name, build_new=False)])
        with pytest.raises(BuildError) as caught:
            visit.image(kept.want())
        title = f"docker/{kept.name}.ubuntu.Dockerfile"
        assert str(caught.value) == (
            f"[3].build_new is false, and this machine has no image of {title} as it is now; "
            "valid: build_new true, or the registry_image to run"
        )
        assert caught.value.dockerfile == title
        assert visit.done == []

    def test_a_tag_selects_too(self, kept: Project, registry: Registry) -> None:
        visit = kept.visit(batch=[wish("fast", registry=registry.address)])
        assert visit.image(kept.want(kept.model(tags="slow,fast"))).registry_image
        assert not visit.image(kept.want(kept.model(tags="slow"))).registry_image


def test_one_name_in_a_registry_is_not_for_all_models_of_a_tag(project: Project) -> None:
    visit = project.visit(batch=[wish("fast", registry_image="team/x")])
    with pytest.raises(UserError, match=r"\[3\]\.registry_image is one name, and 'fast' is a tag of"):
        visit.image(project.want(project.model(tags=["fast"])))


def test_a_batch_names_a_model_rather_than_its_tag(project: Project) -> None:
    by_tag, by_name = wish("fast"), wish(project.name, build_new=False)
    model = project.model(tags=["fast"])
    for batch in ([by_tag, by_name], [by_name, by_tag]):
        assert project.visit(batch=batch).supply.wish(model) == by_name
    assert project.visit(batch=[by_tag]).supply.wish(model) == by_tag
    assert project.visit(batch=[by_name]).supply.wish(Model(name="other", tags=["fast"])) is None


@pytest.mark.requires_registry
class TestManifest:
    @pytest.fixture
    def pushed(self, kept: Project, registry: Registry) -> Image:
        kept.dockerfile("ENV ROCM_PATH=/opt/pushed")
        return kept.visit(registry=registry.address).image(kept.want())

    def test_what_is_gone_here_is_pulled_by_its_digest(self, kept: Project, pushed: Image) -> None:
        kept.forget()
        visit = kept.visit()
        image = visit.image(kept.listed(pushed))
        assert image.reference == f"{repository(pushed.registry_image)}@{pushed.registry_digest}"
        assert (image.digest, image.content, image.base) == (pushed.digest, pushed.content, pushed.base)
        assert docker("inspect", "--format={{.Id}}", image.reference) == pushed.digest
        assert visit.done == [(Phase.PULLING, pushed.registry_image)]

    def test_what_is_here_by_its_digest_is_not_pulled(self, kept: Project, mortal_registry: Registry) -> None:
        pushed = kept.visit(registry=mortal_registry.address).image(kept.want())
        mortal_registry.stop()
        visit = kept.visit()
        assert visit.image(kept.listed(pushed)).digest == pushed.digest
        assert visit.done == []

    def test_a_tag_that_means_another_image_now_does_not_matter(
        self, kept: Project, pushed: Image, images: Images
    ) -> None:
        kept.visit().registries.push(images.make(), pushed.registry_image)
        assert kept.visit().image(kept.listed(pushed)).digest == pushed.digest

    def test_what_has_but_a_tag_is_pulled_each_time(self, kept: Project, pushed: Image, images: Images) -> None:
        listed = kept.listed(Image(pushed.registry_image, registry_image=pushed.registry_image))
        first = kept.visit()
        assert first.image(listed).digest == pushed.digest
        local = images.make()
        first.registries.push(local, pushed.registry_image)
        docker("tag", pushed.reference, pushed.registry_image)
        second = kept.visit()
        assert second.image(listed).digest == images.ids[0]
        assert [*first.done, *second.done] == [(Phase.PULLING, pushed.registry_image)] * 2

    def test_what_has_but_a_tag_is_never_an_old_local_image(self, kept: Project, mortal_registry: Registry) -> None:
        pushed = kept.visit(registry=mortal_registry.address).image(kept.want())
        mortal_registry.stop()
        assert engine.inspect(pushed.registry_image)
        said = kept.visit().refusal(kept.listed(Image(pushed.registry_image, registry_image=pushed.registry_image)))
        assert f"docker pull {pushed.registry_image} failed" in said
        assert "connection refused" in said

    def test_a_private_one_is_pulled_with_the_login_of_the_session(
        self, kept: Project, private_registry: Registry
    ) -> None:
        place = private_registry.address
        pushed = kept.visit(known={place: entry()}, registry=place).image(kept.want())
        kept.forget()
        assert "no basic auth credentials" in kept.visit().refusal(kept.listed(pushed))
        assert kept.visit(known={place: entry()}).image(kept.listed(pushed)).digest == pushed.digest

    def test_one_of_this_machine_alone(self, kept: Project) -> None:
        built = kept.visit().image(kept.want())
        visit = kept.visit()
        assert visit.image(kept.listed(built)) == built
        assert visit.done == []

    def test_one_of_this_machine_that_is_gone(self, kept: Project) -> None:
        built = kept.visit().image(kept.want())
        kept.forget()
        visit = kept.visit()
        assert visit.refusal(kept.listed(built)) == (
            f"{built.reference} is not on this machine, and the manifest names no registry to pull it from: build "
            "it here, or have it pushed by --madengine-registry"
        )
        assert visit.done == []

    def test_one_of_this_machine_that_is_another_by_now(self, kept: Project, images: Images) -> None:
        built = kept.visit().image(kept.want())
        docker("tag", images.make(), built.reference)
        assert kept.visit().refusal(kept.listed(built)) == (
            f"{built.reference} is another image than when the manifest was written ({images.ids[0]} instead of "
            f"{built.digest}): build again"
        )

    def test_one_that_was_not_built_by_us_is_pulled_where_it_is_missing(self, kept: Project, pushed: Image) -> None:
        named = kept.visit(use_image=pushed.registry_image).image(kept.want())
        listed = kept.listed(named)
        kept.forget()
        visit = kept.visit()
        assert visit.image(listed) == named
        assert visit.image(listed) == named
        assert visit.done == [(Phase.PULLING, pushed.registry_image)]
        assert len(visit.told) == 1

    @pytest.mark.parametrize(("stated", "expected"), [("", "/opt/pushed"), ("/opt/stated", "/opt/stated")])
    def test_where_rocm_is_the_image_says_unless_the_manifest_does(
        self, kept: Project, pushed: Image, stated: str, expected: str
    ) -> None:
        image = Image(pushed.registry_image, registry_image=pushed.registry_image, rocm_root=stated)
        assert kept.visit().image(kept.listed(image)).rocm_root == expected

    def test_orders_and_wishes_do_not_touch_it(self, kept: Project) -> None:
        built = kept.visit().image(kept.want())
        visit = kept.visit({"docker_image": "none/x:1"}, use_image="auto", registry=NOBODY, batch=[wish(kept.name)])
        assert visit.image(kept.listed(built)) == built


class TestRecipe:
    """What a build is given."""

    @pytest.fixture(autouse=True)
    def _plain_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MAD_SECRETS_HFTOKEN", raising=False)

    def test_an_architecture_that_the_user_names_is_always_given(self, project: Project) -> None:
        recipe = project.visit(architecture="gfx90a").supply.recipe(project.want(architecture="gfx942"))
        assert recipe.arguments == {SYSTEM: "gfx942"}

    @pytest.mark.parametrize(
        ("line", "stated", "expected"),
        [
            ("", {}, {}),
            (f"ARG {SYSTEM}", {}, {SYSTEM: "gfx90a"}),
            (f"ARG {SYSTEM}=gfx908", {}, {SYSTEM: "gfx90a"}),
            (f"ARG {SYSTEM}", {SYSTEM: "gfx950"}, {SYSTEM: "gfx950"}),
            ("", {SYSTEM: "gfx950"}, {SYSTEM: "gfx950"}),
        ],
    )
    def test_this_machines_architecture_is_given_to_those_who_ask(
        self, project: Project, line: str, stated: dict[str, str], expected: dict[str, str]
    ) -> None:
        project.dockerfile(line)
        supply = project.visit({"docker_build_arg": stated}, architecture="gfx90a").supply
        assert supply.recipe(project.want()).arguments == expected

    def test_a_machine_without_gpus_gives_none(self, project: Project) -> None:
        project.dockerfile(f"ARG {SYSTEM}")
        assert project.visit().supply.recipe(project.want()).arguments == {}

    def test_secrets_are_kept_apart(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MAD_SECRETS_HFTOKEN", "of the environment")
        known = {"SITE": {"username": Secret("u"), "password": Secret("p")}, "OTHER": {"token": Secret("t")}}
        stated = {"BASE": "x", "HF_TOKEN": "hidden"}
        recipe = project.visit({"docker_build_arg": stated}, known).supply.recipe(
            project.want(project.model(cred="SITE"))
        )
        assert recipe.arguments == {"BASE": "x"}
        assert recipe.secrets == {
            "MAD_SECRETS_HFTOKEN": "of the environment",
            "SITE_USERNAME": "u",
            "SITE_PASSWORD": "p",
            "HF_TOKEN": "hidden",
        }
        assert {type(value) for value in recipe.secrets.values()} == {Secret}

    def test_the_dockerfile_is_that_of_the_item_or_the_first_that_fits(self, project: Project) -> None:
        first, second = project.dockerfile(kind="a"), project.dockerfile(kind="b")
        supply = project.visit().supply
        assert supply.recipe(project.want()).dockerfile == first
        assert supply.recipe(project.want(dockerfile=second)).dockerfile == second

    def test_a_build_context_of_the_card(self, project: Project) -> None:
        write(project.folder / "other/file", "")
        recipe = project.visit().supply.recipe(project.want(project.model(dockercontext="other")))
        assert recipe.context == project.folder / "other"


class TestWarnings:
    def test_an_architecture_that_a_dockerfile_leaves_out(self, project: Project) -> None:
        project.dockerfile("ENV PYTORCH_ROCM_ARCH=gfx90a")
        (text,) = project.visit().supply.warnings(project.want(architecture="gfx942"))
        title = f"docker/{project.name}.ubuntu.Dockerfile"
        assert text == f"{title}:4: PYTORCH_ROCM_ARCH=gfx90a does not name gfx942, which this image is built for"
        assert project.visit().supply.warnings(project.want(architecture="gfx90a")) == []

    @pytest.mark.parametrize("given", [{"architecture": "gfx90a"}, {}])
    def test_a_dockerfile_that_asks_and_gets_no_answer(self, project: Project, given: dict[str, Any]) -> None:
        project.dockerfile(f"ARG {SYSTEM}")
        found = project.visit(**given).supply.warnings(project.want())
        assert bool(found) is not bool(given)

    def test_none_where_nothing_is_built(self, project: Project) -> None:
        project.dockerfile(f"ARG {SYSTEM}")
        orders = project.visit(use_image="x:1").supply
        taken = project.visit(batch=[wish(project.name, build_new=False)]).supply
        plain = project.visit().supply
        assert orders.warnings(project.want()) == taken.warnings(project.want()) == []
        assert plain.warnings(project.want(self_managed=True)) == plain.warnings(project.listed(Image("x:1"))) == []


@pytest.mark.requires_docker
class TestInsideABuild:
    def test_the_architecture_and_the_tools(self, kept: Project) -> None:
        write(kept.folder / "scripts/common/tools/helper", "helped ")
        kept.dockerfile(
            f"ARG {SYSTEM}", "COPY --from=tools helper /helper", f"RUN printf %s ${SYSTEM} >> /helper", base=BASE_IMAGE
        )
        image = kept.visit().image(kept.want(architecture="gfx942"))
        assert image.architecture == "gfx942"
        assert docker("run", "--rm", "--network=none", image.reference, "cat", "/helper") == "helped gfx942"


@pytest.mark.requires_registry
class TestSecrecy:
    def test_what_is_secret_reaches_the_build_and_shows_nowhere(
        self, kept: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        planted = f"planted-{secrets.token_hex(8)}"
        monkeypatch.setenv("MAD_SECRETS_SITE", f"{planted}-environment")
        known = {"SITE": {"password": Secret(f"{planted}-password"), "token": Secret(f"{planted}-token")}}
        kept.dockerfile(
            "ARG SITE_PASSWORD",
            "ARG HF_TOKEN",
            'RUN echo "$SITE_PASSWORD $HF_TOKEN"; printf "%s %s" "$SITE_PASSWORD" "$HF_TOKEN" | md5sum > /arguments',
            "RUN --mount=type=secret,id=SITE_TOKEN cat /run/secrets/SITE_TOKEN",
            "RUN --mount=type=secret,id=SITE_TOKEN md5sum < /run/secrets/SITE_TOKEN > /mounted",
            "RUN --mount=type=secret,id=MAD_SECRETS_SITE md5sum < /run/secrets/MAD_SECRETS_SITE > /environment",
            base=BASE_IMAGE,
        )
        visit = kept.visit({"docker_build_arg": {"HF_TOKEN": f"{planted}-stated"}}, known)
        with Spy(planted) as spy:
            image = visit.image(kept.want(kept.model(cred="SITE")))
        sums = docker("run", "--rm", "--network=none", image.reference, "cat", "/arguments", "/mounted", "/environment")
        given = (f"{planted}-password {planted}-stated", f"{planted}-token", f"{planted}-environment")
        assert sums.split()[::2] == [md5(text) for text in given]
        assert spy.seen == []
        assert logs(visit).count("***") >= 2
        assert not [text for text in (*shown(visit, image), *capfd.readouterr()) if planted in text]

    def test_a_login_shows_nowhere(
        self, kept: Project, private_registry: Registry, capfd: pytest.CaptureFixture[str]
    ) -> None:
        place = private_registry.address
        visit = kept.visit(known={place: entry()}, registry=place)
        with Spy(LOGIN.password) as spy:
            image = visit.image(kept.want())
        assert visit.transfers == [(Phase.PUSHING, image.registry_image)]
        assert spy.seen == []
        assert not [text for text in (*shown(visit, image), *capfd.readouterr()) if LOGIN.password in text]

    def test_a_build_that_fails_does_not_tell(self, kept: Project) -> None:
        planted = f"planted-{secrets.token_hex(8)}"
        kept.dockerfile("ARG SITE_PASSWORD", 'RUN echo "it is $SITE_PASSWORD"; false', base=BASE_IMAGE)
        visit = kept.visit(known={"SITE": {"password": Secret(planted)}})
        said = visit.refusal(kept.want(kept.model(cred="SITE")), BuildError)
        assert "it is ***" in said
        assert planted not in said + logs(visit) + "".join(map(read, visit.records.glob("*/image.json")))


def md5(text: str) -> str:
    return subprocess.run(["md5sum"], input=text, capture_output=True, check=True, text=True).stdout.split()[0]


def shown(visit: Visit, image: Image) -> list[str]:
    """What people and later sessions get to see."""
    noted = [read(path) for path in visit.records.rglob("*") if path.is_file()]
    return [*noted, json.dumps(image.to_json()), repr(visit.told), docker("inspect", image.reference)]


def logs(visit: Visit) -> str:
    """All build logs of a session."""
    return "".join(read(path) for path in sorted(visit.records.glob("*/build.log")))


def supply(context: Mapping[str, Any] | None = None, **orders: Any) -> Supply:
    """One that is asked for no image."""
    return Visit(Path("none"), Orders(**orders), context).supply


def card(name: str = "m", line: int = 1, **fields: Any) -> Want:
    """A wish of a card; what is no field of a card is one of the wish."""
    own = {key: fields.pop(key) for key in ("architecture", "self_managed", "entry") if key in fields}
    path = fields.pop("path", None)
    model = Model(**{"name": name, "dockerfile": "docker/m", **fields})
    return Want(model, Source(Path("/p/models.json"), line, Path("/p")), path, **own)


X: dict[str, Any] = {"docker_image": "x:1"}
Y: dict[str, Any] = {"docker_image": "y:1"}
LISTED = Entry("k", Model(name="m"), Image("x:1"))
PLAIN = supply()
AUTO, AUTO_IN_CONTEXT = supply(use_image="auto"), supply({"docker_image": "auto"})
BY_TAG = supply(batch=[wish("t")])


def test_the_gpus_that_an_image_is_for_are_those_of_the_manifest_or_of_the_user() -> None:
    listed = Entry("k", Model(name="m"), Image("x:1", vendor="AMD", architecture="gfx90a"))
    lost = Entry("k", Model(name="m"), None)
    assert card(architecture="gfx942", entry=listed).made_for == ("AMD", "gfx90a")
    for want in (card(architecture="gfx942"), card(architecture="gfx942", entry=lost)):
        assert want.made_for == ("", "gfx942")


class TestKey:
    """Models share an image, and what went wrong with it, where one serves them all."""

    @pytest.mark.parametrize(
        ("of", "one", "other"),
        [
            (PLAIN, card(), card("n", 2)),
            (PLAIN, card(args="--a"), card(args="--b")),
            (PLAIN, card(**X), card(**Y)),
            (supply(use_image="x:1"), card(), card("n", dockerfile="docker/n", cred="C")),
            (supply({"docker_image": "x:1"}), card(**Y), card("n", dockerfile="docker/n")),
            (AUTO, card(**X), card("n", 2, dockerfile="docker/n", env_vars={"DOCKER_IMAGE_NAME": "x:1"})),
            (AUTO_IN_CONTEXT, card(**X), card("n", 2, dockerfile="docker/n", **X)),
            (PLAIN, card(self_managed=True, **X), card("n", 2, self_managed=True, dockerfile="docker/n", **X)),
            (supply(registry=NOBODY), card(self_managed=True, **X), card(self_managed=True, **Y)),
            (BY_TAG, card(tags="t"), card("n", tags="s,t")),
            (PLAIN, card(entry=LISTED), card("n", entry=Entry("other", Model(name="n"), Image("x:1")))),
        ],
    )
    def test_alike(self, of: Supply, one: Want, other: Want) -> None:
        assert of.key(one) == of.key(other)
        assert hash(of.key(one)) == hash(of.key(other))

    @pytest.mark.parametrize(
        ("of", "one", "other"),
        [
            (PLAIN, card(), card(dockerfile="docker/n")),
            (PLAIN, card(), card(dockercontext="docker")),
            (PLAIN, card(), card(cred="C")),
            (PLAIN, card(path=Path("a")), card(path=Path("b"))),
            (PLAIN, card(architecture="gfx942"), card(architecture="gfx90a")),
            (PLAIN, card(self_managed=True), card()),
            (supply(use_image="x:1"), card(self_managed=True), card()),
            (AUTO, card(**X), card(**Y)),
            (AUTO_IN_CONTEXT, card(**X), card(**Y)),
            (AUTO, card(), card("n", 2)),
            (AUTO_IN_CONTEXT, card(), card("n", 2)),
            (PLAIN, card(dockerfile=""), card("n", 2, dockerfile="")),
            (PLAIN, card(self_managed=True, **X), card(self_managed=True, **Y)),
            (BY_TAG, card(tags="t"), card("n")),
            (supply(batch=[wish("m"), wish("n", build_new=False)]), card(), card("n")),
            (PLAIN, card(entry=LISTED), card(entry=Entry("k", Model(name="m"), Image("y:1")))),
            (PLAIN, card(entry=LISTED), card(entry=LISTED, self_managed=True)),
            (PLAIN, card(entry=Entry("k", Model(name="m"), None)), card(entry=Entry("l", Model(name="m"), None))),
        ],
    )
    def test_unlike(self, of: Supply, one: Want, other: Want) -> None:
        assert of.key(one) != of.key(other)


IMAGES = st.sampled_from(["", "x:1", "y:1"])
CARDS = st.builds(
    lambda name, own, variable, self_managed, dockerfile: card(
        name,
        docker_image=own,
        env_vars={"DOCKER_IMAGE_NAME": variable} if variable else {},
        self_managed=self_managed,
        dockerfile=dockerfile,
    ),
    st.sampled_from(["m", "n"]),
    IMAGES,
    IMAGES,
    st.booleans(),
    st.sampled_from(["", "docker/m", "docker/n"]),
)
SUPPLIES = st.builds(
    lambda use_image, of_context, registry, names: supply(
        {"docker_image": of_context}, use_image=use_image, registry=registry, batch=[wish(name) for name in names]
    ),
    st.sampled_from(["", "auto", "z:1"]),
    st.sampled_from([None, "auto", "c:1"]),
    st.sampled_from(["", NOBODY]),
    st.sets(st.sampled_from(["m", "n"])),
)


def outcome(ask: Callable[[Want], object], want: Want) -> object:
    """What is answered, or the words of the refusal."""
    try:
        return ask(want)
    except UserError as error:
        return str(error)


@given(SUPPLIES, CARDS, CARDS)
def test_models_of_one_key_get_the_same_answer(of: Supply, one: Want, other: Want) -> None:
    names = [outcome(of.named, want) for want in (one, other)]
    if of.key(one) == of.key(other):
        assert names[0] == names[1]
        assert one.self_managed == other.self_managed
        assert names[0] or of.wish(one.model) == of.wish(other.model)
        assert names[0] or (one.model.dockerfile or one.model.name) == (other.model.dockerfile or other.model.name)
    elif one.self_managed == other.self_managed and "" not in names:
        assert names[0] != names[1]
