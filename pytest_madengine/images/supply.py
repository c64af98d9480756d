"""Which image a model runs in, and how it is had: built, pulled or only named."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_madengine.context import credentials, presets
from pytest_madengine.context.context import Context
from pytest_madengine.engine.board import Phase, Progress
from pytest_madengine.errors import BuildError, Fault, FaultsError, InfrastructureError, PushError, UserError
from pytest_madengine.images import architecture, build, dockerfile, engine, oncompute, registry, shipping
from pytest_madengine.images.batch import BatchEntry
from pytest_madengine.images.build import Builder, Doing, Recipe
from pytest_madengine.images.image import Image
from pytest_madengine.images.manifest import Entry
from pytest_madengine.images.oncompute import OnCompute
from pytest_madengine.images.registry import Registries
from pytest_madengine.models.model import Model, Source
from pytest_madengine.models.selection import Named, Tag
from pytest_madengine.secrets import Secret, is_secret, secrets_of_environment

AUTO = "auto"
NAME_VARIABLE = "DOCKER_IMAGE_NAME"
"""By which cards name an image, and models get the name of theirs."""


@dataclass(frozen=True)
class Want:
    """One model's wish for an image.

    Attributes:
        source: where its card stands.
        dockerfile: the one of this item, where several fit.
        architecture: GPUs that the image is to be for; '' where the user names none.
        entry: what a manifest says of it.
        self_managed: whether the model starts its own containers, so that the name of an image is all it needs.
        use: an image that wins over whatever else is said; '' for none.
    """

    model: Model
    source: Source
    dockerfile: Path | None = None
    architecture: str = ""
    entry: Entry | None = None
    self_managed: bool = False
    use: str = ""

    @property
    def made_for(self) -> tuple[str, str]:
        """The vendor and the architecture of the GPUs that the image is for; '' where nobody says."""
        image = self.entry.image if self.entry else None
        return (image.vendor, image.architecture) if image else ("", self.architecture)


@dataclass(frozen=True)
class Orders:
    """What the user asked of images.

    Attributes:
        use_image: an image to run in place of all others; `auto`: the one that each card names; '' where not given.
        registry: where to push what was built; '' nowhere.
        batch: wishes for single models.
        architecture: this machine's GPUs, for Dockerfiles that ask; '' where they are not to be looked at.
        build_only: whether images that are in a registry may stay there.
        on_nodes: whether models run on nodes, which pull by themselves what is in a registry.
        ship_to: a folder that nodes see too, for archives of images that no registry has; None where none are needed.
        in_pods: whether models run in pods, which get images from registries alone unless told otherwise.
        reservation: SLURM's, for builds on nodes; '' where none is given.
    """

    use_image: str = ""
    registry: str = ""
    batch: Sequence[BatchEntry] = ()
    architecture: str = ""
    build_only: bool = False
    on_nodes: bool = False
    ship_to: Path | None = None
    in_pods: bool = False
    reservation: str = ""


class Supply:
    """Gets the images of a session's models.

    Args:
        orders: what the user asked for.
        context: names an image for all, and gives build arguments.
        header: what `# CONTEXT` lines of Dockerfiles are compared with.
        known: credential.json with the environment's overrides.
        builder: builds; pulls base images as `registries` does.
        registries: pushes and pulls.
    """

    def __init__(  # what it is made of
        self,
        orders: Orders,
        context: Context,
        header: Mapping[str, Any],
        known: Mapping[str, Any],
        builder: Builder,
        registries: Registries,
    ) -> None:
        self.orders = orders
        self._context = context
        self._header = header
        self._credentials = known
        self._builder = builder
        self._registries = registries

    def image(self, want: Want, doing: Doing) -> Image:
        """The image that a model runs in, as the machine that runs it can have it.

        Raises:
            BuildError: the build failed.
            InfrastructureError: the engine or a registry is out of reach, or refuses.
            UserError: no Dockerfile fits, or none is named.
        """
        image, folder = self._image(want, doing), self.orders.ship_to
        if folder is None or want.self_managed or image.registry_image or not image.digest:
            return image
        return shipping.shipped(image, folder, self._builder, doing)

    def _image(self, want: Want, doing: Doing) -> Image:
        if want.entry:
            image = _listed(want.entry)
            return image if want.self_managed else self._of_manifest(image, doing)
        if name := self.named(want):
            return self._named(want, name, doing)
        wish = self.wish(want.model)
        if want.self_managed and not (wish or self.orders.registry):
            raise UserError(
                f"{_place(want)}: {want.model.name} starts its own containers and names no image: set "
                f"env_vars.{NAME_VARIABLE}, or give --madengine-use-image or --madengine-registry"
            )
        if wish and wish.registry_image and wish.model_name != want.model.name:
            raise UserError(
                f"[{wish.index}].registry_image is one name, and {wish.model_name!r} is a tag of {want.model.name}; "
                "valid: an entry for each model, or a registry"
            )
        if wish and not wish.build_new:
            return self._not_to_be_built(want, wish, doing)
        self._require_way_to_pods(want, wish)
        if isinstance(self._builder, OnCompute):
            return self._built_there(self._builder, want, wish, doing)
        engine.client()
        image = self._builder.build(self.recipe(want), doing)
        return self._pushed(image, self.remote_name(want, wish, image.reference), doing)

    def _require_way_to_pods(self, want: Want, wish: BatchEntry | None) -> None:
        """Meet an image that no pod could have, before it is built.

        Raises:
            UserError: it goes to no registry, from which pods are to pull it.
        """
        if not self.orders.in_pods or self.orders.registry or (wish and (wish.registry or wish.registry_image)):
            return
        if presets.for_pods(want.model, self._context, want.source).k8s.image_pull_policy == "Always":
            raise UserError(
                f"{_place(want)}: {want.model.name}: its image would be on this machine alone, and pods pull theirs; "
                "valid: --madengine-registry or --madengine-use-image, or k8s.image_pull_policy 'IfNotPresent' where "
                "nodes have it"
            )

    def key(self, want: Want) -> Hashable:
        """What is equal for wishes that one image fulfils; a card that is at fault shares its error with no other."""
        if want.entry:
            return want.entry.image or want.entry.key, want.self_managed
        model, card = want.model, (want.source, want.model.name)
        try:
            name = self.named(want)
        except UserError:
            return card, want.self_managed
        if name:
            return name, want.self_managed
        recipe = want.source.root, model.dockerfile or card, want.dockerfile, model.dockercontext, model.cred
        return recipe, self.wish(model), want.architecture, want.self_managed

    def named(self, want: Want) -> str:
        """The image that the user, the context or the card names; '' where one is to be built.

        Raises:
            UserError: the card was to name one and does not.
        """
        given = want.use or self.orders.use_image or self._context.image or ""
        if given and given != AUTO:
            return given
        own = self._own_name(want)
        if given == AUTO and not own:
            raise UserError(
                f"{_place(want)}: --madengine-use-image=auto, and {want.model.name} names no image: set docker_image "
                f"or env_vars.{NAME_VARIABLE} in its card"
            )
        implicit = want.self_managed and not (self.orders.registry or self.wish(want.model))
        return own if given == AUTO or implicit else ""

    def _own_name(self, want: Want) -> str:
        """The image that the card names; where a name is all that is needed, the context's variable wins over it."""
        stated = {**self._context.env_vars, **self._context.docker_env_vars} if want.self_managed else {}
        named = stated.get(NAME_VARIABLE) or want.model.docker_image
        return named or want.model.env_vars.get(NAME_VARIABLE, "")

    def concerns(self, want: Want) -> bool:
        """Whether a model that starts its own containers is to get an image's name."""
        return bool(want.entry or self.named(want) or self.orders.registry or self.wish(want.model))

    def builds(self) -> bool:
        """Whether images are built at all, as far as the whole session goes."""
        return not (self.orders.use_image or self._context.image)

    def wish(self, model: Model) -> BatchEntry | None:
        """The batch manifest's entry for a model: the one of its name, else one of its tags."""
        exact = [wish for wish in self.orders.batch if wish.model_name == model.name]
        named = Named(model.name, model.tags)
        by_tag = (wish for wish in self.orders.batch if Tag(wish.model_name, wish.model_name).matches(named))
        return next(itertools.chain(exact, by_tag), None)

    def dockerfiles(self, model: Model, source: Source) -> list[Path]:
        """The Dockerfiles that a card builds; several make several items.

        Raises:
            UserError: none fits.
        """
        return dockerfile.matching(source.root / model.dockerfile, self._header)

    def recipe(self, want: Want) -> Recipe:
        """All that the build of an image depends on.

        Raises:
            UserError: no Dockerfile fits, or the build context is no folder.
        """
        model, source = want.model, want.source
        if not model.dockerfile:
            bare = "--target=host" + (", or slurm.container_runtime: none," if self.orders.on_nodes else "")
            raise UserError(f"{_place(want)}: {model.name}.dockerfile is missing; {bare} needs none")
        folder = build.context_folder(source.root, model.dockercontext, model.dockerfile)
        if not folder.is_dir():
            place = f"{_place(want)}: {model.name}.dockercontext"
            raise FaultsError([Fault(place, f"{folder} is no folder", "a folder of the project")])
        path = want.dockerfile or self.dockerfiles(model, source)[0]
        stated = self._context.docker_build_arg
        arguments = {name: value for name, value in stated.items() if not is_secret(name)}
        if want.architecture:
            arguments[architecture.SYSTEM] = want.architecture
        elif self.orders.architecture and architecture.SYSTEM in dockerfile.declared_args(path):
            arguments.setdefault(architecture.SYSTEM, self.orders.architecture)
        secrets = {
            **secrets_of_environment(os.environ),
            **credentials.variables(model, self._credentials),
            **{name: Secret(value) for name, value in stated.items() if is_secret(name)},
        }
        return Recipe(source.root, path, folder, arguments, secrets)

    def warnings(self, want: Want) -> list[str]:
        """What is odd about the image that is built for a model."""
        wish = self.wish(want.model)
        if want.entry or self.named(want) or want.self_managed or (wish and not wish.build_new):
            return []
        recipe = self.recipe(want)
        declared = dockerfile.declarations(recipe.dockerfile, recipe.arguments)
        target = architecture.given_architecture(declared, recipe.arguments)
        return architecture.warnings(declared, target, recipe.title)

    def _of_manifest(self, image: Image, doing: Doing) -> Image:
        if self.orders.on_nodes and image.registry_image:
            return image if image.registry_digest else self._pinned(image)
        attributes = self._from_registry(image, doing) if image.registry_image else self._of_this_machine(image, doing)
        return replace(image, digest=str(attributes["Id"]), rocm_root=image.rocm_root or engine.rocm_root(attributes))

    def _from_registry(self, image: Image, doing: Doing) -> Mapping[str, Any]:
        """By digest, which never changes; a name without one is pulled each time: it may mean another image now."""
        known = engine.inspect(image.reference) if image.registry_digest else None
        if known is None:
            doing(Progress(Phase.PULLING, image.registry_image))
            known = self._registries.pull(image.reference)
        return known

    def _of_this_machine(self, image: Image, doing: Doing) -> Mapping[str, Any]:
        found = engine.inspect(image.reference) if image.content else self._local_or_pulled(image.reference, doing)
        if found is None:
            raise InfrastructureError(
                f"{image.reference} is not on this machine, and the manifest names no registry to pull it from: build "
                "it here, or have it pushed by --madengine-registry"
            )
        if image.digest and found["Id"] != image.digest:
            raise InfrastructureError(
                f"{image.reference} is another image than when the manifest was written ({found['Id']} instead of "
                f"{image.digest}): build again"
            )
        return found

    def _local_or_pulled(self, reference: str, doing: Doing) -> Mapping[str, Any]:
        return engine.local_or_pulled(
            reference, lambda name: doing(Progress(Phase.PULLING, name)), self._registries.pull
        )

    def _named(self, want: Want, name: str, doing: Doing) -> Image:
        if want.self_managed:
            return Image(name)
        if self.orders.on_nodes:
            return self._named_for_nodes(name)
        return _local(name, self._local_or_pulled(name, doing))

    def _named_for_nodes(self, name: str) -> Image:
        """An image that nodes pull; or one of this machine, if its registry has not the same by that name."""
        if "@" in name or not _has_engine():
            return self._pinned(Image(name))
        found = engine.inspect(name)
        image = _local(name, found) if found else Image(name)
        digest = self._there_already(image, name) if found else ""
        return image if found and not digest else self._pinned(image, digest)

    def _pinned(self, image: Image, digest: str = "") -> Image:
        """An image that nodes pull by digest; where no engine here says which, they compare what they got."""
        name = image.registry_image or image.reference
        digest = digest or name.partition("@")[2] or (self._registries.digest(name) if _has_engine() else "")
        reference = f"{registry.repository(name)}@{digest}" if digest else name
        return replace(image, reference=reference, registry_image=name, registry_digest=digest)

    def _not_to_be_built(self, want: Want, wish: BatchEntry, doing: Doing) -> Image:
        """The image that is there already: in a registry, else on this machine with the present content."""
        if wish.registry_image:
            return self._known_to_registry(want, self.remote_name(want, wish, ""), doing)
        recipe = self.recipe(want)
        known = self._builder.prepared(recipe, doing)
        if remote := self.remote_name(want, wish, known.reference):
            return self._known_to_registry(want, remote, doing)
        found = engine.inspect(known.reference)
        if found is None:
            raise BuildError(
                f"[{wish.index}].build_new is false, and this machine has no image of {recipe.title} as it is now; "
                "valid: build_new true, or the registry_image to run",
                dockerfile=recipe.title,
            )
        return known.image(found)

    def _known_to_registry(self, want: Want, remote: str, doing: Doing) -> Image:
        image = self._pinned(Image(remote), "" if self.orders.on_nodes else self._registries.digest(remote))
        if self.orders.build_only or self.orders.on_nodes or want.self_managed:
            return image
        attributes = self._from_registry(image, doing)
        return replace(image, digest=str(attributes["Id"]), rocm_root=engine.rocm_root(attributes))

    def _built_there(self, builder: OnCompute, want: Want, wish: BatchEntry | None, doing: Doing) -> Image:
        """The image that a node builds; where models run here it is pulled."""
        recipe = self.recipe(want)
        planned = builder.planned(recipe)
        remote = self.remote_name(want, wish, planned.reference)
        with self._name_locked(remote) as record:
            self._claim(Image(planned.reference, digest=planned.content), remote, record)
        slurm = oncompute.request(want.model, self._context, want.source, self.orders.reservation)
        image = builder.build_there(recipe, remote, slurm, doing)
        if self.orders.build_only or self.orders.on_nodes or want.self_managed:
            return image
        return replace(image, digest=str(self._from_registry(image, doing)["Id"]))

    def remote_name(self, want: Want, wish: BatchEntry | None, local: str) -> str:
        """The name to push an image under; '' where it stays here."""
        if wish and wish.registry_image:
            variant = [f"ci-{build.name_of(want.dockerfile)}" if want.dockerfile else "", want.architecture]
            return _tagged(wish.registry_image, "-".join(filter(None, variant)))
        place = (wish.registry if wish else "") or self.orders.registry
        return registry.push_name(place, local, self._credentials) if place else ""

    def _pushed(self, image: Image, remote: str, doing: Doing) -> Image:
        if not remote:
            return image
        with self._name_locked(remote) as record:
            self._claim(image, remote, record)
            digest = self._there_already(image, remote)
            if not digest:
                doing(Progress(Phase.PUSHING, remote))
                digest = self._push(image, remote)
        return replace(image, registry_image=remote, registry_digest=digest)

    @contextmanager
    def _name_locked(self, remote: str) -> Iterator[Path]:
        """Let only one thread and process deal with a name in a registry; gives the file for what it stands for."""
        name = f"push-{hashlib.sha256(remote.encode()).hexdigest()[:16]}"
        self._builder.records.mkdir(parents=True, exist_ok=True)
        with build.locked(name, self._builder.stopping):
            yield self._builder.records / name

    def _claim(self, image: Image, remote: str, record: Path) -> None:
        """Let a name in a registry stand for one image in this session.

        Raises:
            UserError: another image went there.
        """
        if record.exists() and record.read_text(encoding="utf-8") != image.digest:
            raise UserError(
                f"{remote} is to hold two images, {image.reference} and another; valid: a name of its own for each"
            )
        record.write_text(image.digest, encoding="utf-8")

    def _push(self, image: Image, remote: str) -> str:
        try:
            return self._registries.push(image.reference, remote)
        except InfrastructureError as error:
            raise PushError(str(error), remote) from None

    def _there_already(self, image: Image, remote: str) -> str:
        """The digest under which the registry has this very image; '' where it does not, or does not say."""
        known = engine.repo_digests(engine.inspect(image.reference) or {}, registry.repository(remote))
        try:
            digest = self._registries.digest(remote) if known else ""
        except InfrastructureError:
            return ""
        return digest if digest in known else ""


def _listed(entry: Entry) -> Image:
    """The image that a manifest has of a model."""
    if entry.image is None:
        raise BuildError(f"the manifest has no image of {entry.card.name}: {entry.error}")
    return entry.image


def _local(name: str, attributes: Mapping[str, Any]) -> Image:
    """An image of this machine."""
    return Image(name, digest=str(attributes["Id"]), rocm_root=engine.rocm_root(attributes))


def _has_engine() -> bool:
    try:
        engine.client()
    except InfrastructureError:
        return False
    return True


def _tagged(name: str, variant: str) -> str:
    """A name for one variant of what goes by it."""
    folder, slash, last = name.rpartition("/")
    repository, _, tag = last.partition(":")
    told_apart = "-".join(filter(None, [tag, re.sub(r"[^A-Za-z0-9_.-]+", "-", variant)]))
    return f"{folder}{slash}{':'.join(filter(None, [repository, told_apart]))}"


def _place(want: Want) -> str:
    return f"{want.source.file}:{want.source.line}"
