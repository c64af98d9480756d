"""Images are built here, pushed, and run elsewhere: whole stories on a real engine and a real registry."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.support import Spy
from tests.cards import PASSES, card, project, rows, run_bare, statuses
from tests.engines.registries import LOGIN, Registry
from tests.images.test_manifest import WIKI

pytestmark = pytest.mark.requires_registry
FAILING = "c"
PLANTED = {
    "MAD_SECRETS_SHELL": "planted-in-the-shell",
    "cred": "planted-in-credentials",
    "context": "planted-in-the-context",
    "build": "planted-in-build-arguments",
    "card": "planted-in-a-card",
}


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Shop:
    """A project whose images nobody else has; they go with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"shop-{secrets.token_hex(5)}"

    def dockerfile(self, letter: str, *lines: str) -> str:
        """The prefix of a new Dockerfile."""
        path = self.folder / f"docker/{self.name}-{letter}.Dockerfile"
        path.parent.mkdir(parents=True, exist_ok=True)
        steps = [f"RUN echo {self.name}{letter} > /mark", *lines]
        path.write_text("\n".join(["FROM madengine-test-base:latest", *steps, ""]))
        return f"docker/{self.name}-{letter}"

    def images(self) -> list[str]:
        """The ids of its images on this machine."""
        listed = docker("images", "--format={{.ID}} {{.Repository}}").splitlines()
        return sorted({line.split()[0] for line in listed if self.name in line})

    def wipe(self) -> None:
        """Take its images, and what BuildKit knows of them, from this machine."""
        if images := self.images():
            docker("rmi", "--force", *images)

    def built(self) -> int:
        """How many builds the latest run tried."""
        return len(list(self.folder.glob(".madengine/runs/latest/images/*/build.log")))

    def manifest(self) -> dict[str, Any]:
        """What the build wrote."""
        manifest: dict[str, Any] = json.loads((self.folder / "build_manifest.json").read_text())
        return manifest


@pytest.fixture
def shop(pytester: pytest.Pytester) -> Iterator[Shop]:
    shop = Shop(pytester.path)
    yield shop
    shop.wipe()


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_twelve_models_of_four_dockerfiles_one_of_which_fails(
    pytester: pytest.Pytester, shop: Shop, registry: Registry, workers: str
) -> None:
    prefixes = {letter: shop.dockerfile(letter, *(["RUN false"] if letter == FAILING else [])) for letter in "abcd"}
    cards = [card(f"{letter}{number}", dockerfile=prefixes[letter]) for letter in "abcd" for number in range(3)]
    project(shop.folder, *cards, script="test -s /mark && echo $DOCKER_IMAGE_NAME\n" + PASSES)
    build = ("--madengine-build-only", f"--madengine-registry={registry.address}", workers)

    first = run_bare(pytester, *build)
    first.assert_outcomes(passed=9, errors=3)
    assert shop.built() == 4
    assert not (shop.folder / "perf.csv").exists()

    shop.wipe()
    assert shop.images() == []
    ran = run_bare(pytester, "--madengine-manifest=build_manifest.json", workers)
    ran.assert_outcomes(passed=9, errors=3)
    assert shop.built() == 0
    expected = {each["name"]: "FAILURE" if each["name"].startswith(FAILING) else "SUCCESS" for each in cards}
    assert statuses(shop.folder / "perf.csv") == expected
    for row in rows(shop.folder / "perf.csv"):
        if row["status"] == "SUCCESS":
            assert row["docker_image"].startswith(f"{registry.address}/ci-{shop.name}-{row['model'][0]}@sha256:")
    logs = {
        path.parent.name[:2]: path.read_text() for path in shop.folder.glob(".madengine/runs/latest/jobs/*/run.log")
    }
    assert f"{registry.address}/ci-{shop.name}-a:" in logs["a0"]

    _nothing_is_built_twice(pytester, shop, build)


def _nothing_is_built_twice(pytester: pytest.Pytester, shop: Shop, build: tuple[str, ...]) -> None:
    before = (shop.folder / "build_manifest.json").read_bytes()
    again = run_bare(pytester, *build, "-k", "not c")
    again.assert_outcomes(passed=9)
    again.stdout.fnmatch_lines(["madengine: images: * built, * there already"])
    digests = [
        {key: image["digest"] for key, image in built["built_images"].items()}
        for built in (json.loads(before), shop.manifest())
    ]
    assert digests[0] == digests[1]

    before = (shop.folder / "build_manifest.json").read_bytes()
    unchanged = run_bare(pytester, *build, "-k", "not c")
    assert shop.built() == 0
    unchanged.stdout.fnmatch_lines(
        ["madengine: images: 0 built, 3 there already", "madengine: manifest: *build_manifest.json, unchanged"]
    )
    assert (shop.folder / "build_manifest.json").read_bytes() == before


def test_the_manifest_of_the_wiki(pytester: pytest.Pytester, shop: Shop) -> None:
    named = "registry.io/ml/ci-llama3:sha256-abc"
    docker("tag", "madengine-test-base:latest", named)
    try:
        project(pytester.path)
        script = pytester.path / "scripts/llama3/train.sh"
        script.parent.mkdir(parents=True)
        script.write_text(f"test $DOCKER_IMAGE_NAME = {named} && test $NCCL_DEBUG = WARN\n{PASSES}")
        (pytester.path / "build_manifest.json").write_text(json.dumps(WIKI, indent=2))
        here = '--madengine-context={"n_gpus": 0}'
        result = run_bare(pytester, "--madengine-manifest=build_manifest.json", "--target=docker", here)
        result.assert_outcomes(passed=1, warnings=1)
    finally:
        docker("rmi", named)
    (row,) = rows(pytester.path / "perf.csv")
    assert (row["model"], row["status"], row["docker_image"]) == ("llama3-8b-train", "SUCCESS", named)
    assert (row["args"], row["tags"]) == ("--batch-size 4", "llama3,training")


def test_a_batch_of_all_four_kinds(pytester: pytest.Pytester, shop: Shop, registry: Registry) -> None:
    """The shape of the published example, with a registry that can be reached from here."""
    example = json.loads((Path(__file__).parents[1] / "examples/build-manifest/batch.json").read_text())
    names = [entry["model_name"] for entry in example]
    project(shop.folder, *(card(name, dockerfile=shop.dockerfile(name[0])) for name in [*names, "left_out"]))
    run_bare(pytester, "--madengine-build-only", "--madengine-tags=resnet_train,whisper_serve").assert_outcomes(
        passed=2
    )
    local = shop.manifest()["built_images"]["resnet_train"]["docker_image"]
    hub, loopback, held, _ = example
    hub |= {"registry": f"{registry.address}/team", "registry_image": f"{registry.address}/team/llama:{shop.name}"}
    loopback |= {"registry": registry.address}
    held |= {"registry": registry.address, "registry_image": f"{registry.address}/held:{shop.name}"}
    docker("tag", local, held["registry_image"])
    docker("push", "--quiet", held["registry_image"])
    (shop.folder / "batch.json").write_text(json.dumps(example))

    run_bare(pytester, "--madengine-batch-manifest=batch.json", "--madengine-build-only").assert_outcomes(passed=4)
    assert shop.built() == 2
    images = shop.manifest()["built_images"]
    assert images["llama_train"]["registry_image"] == hub["registry_image"]
    assert images["mixtral_serve"]["registry_image"].startswith(f"{registry.address}/ci-{shop.name}-m:")
    assert images["resnet_train"]["registry_image"] == held["registry_image"]
    assert "registry_image" not in images["whisper_serve"]

    run_bare(pytester, "--madengine-manifest=build_manifest.json").assert_outcomes(passed=4)
    run_bare(pytester, "--madengine-batch-manifest=batch.json").assert_outcomes(passed=4)
    assert [row["status"] for row in rows(shop.folder / "perf.csv")] == ["SUCCESS"] * 8


STEPS = (
    "ARG site_PASSWORD",
    "ARG BUILD_TOKEN",
    "RUN --mount=type=secret,id=site_PASSWORD cat /run/secrets/site_PASSWORD && echo",
    "RUN --mount=type=secret,id=MAD_SECRETS_SHELL cat /run/secrets/MAD_SECRETS_SHELL && echo",
    'RUN echo "$site_PASSWORD $BUILD_TOKEN"',
)


def indiscreet(shop: Shop, registry: Registry) -> list[str]:
    """A project that shows all the secrets it is given, with a model that cannot be built; gives its options."""
    cred = {"username": "somebody", "password": PLANTED["cred"]}
    known = {"site": cred, registry.address: LOGIN.entry()}
    (shop.folder / "credential.json").write_text(json.dumps(known))
    one = card("m", dockerfile=shop.dockerfile("a", *STEPS), cred="site", env_vars={"HF_TOKEN": PLANTED["card"]})
    shows = 'echo "$MAD_SECRETS_SHELL $site_PASSWORD $WANDB_API_KEY $HF_TOKEN"\n'
    broken = card("broken", dockerfile=shop.dockerfile("b", *STEPS, "RUN false"), cred="site")
    project(shop.folder, one, broken, m=shows + PASSES)
    stated = {"secrets": {"WANDB_API_KEY": PLANTED["context"]}, "docker_build_arg": {"BUILD_TOKEN": PLANTED["build"]}}
    (shop.folder / "context.json").write_text(json.dumps(stated))
    return ["--madengine-tags=all", "--madengine-context-file=context.json"]


@pytest.mark.parametrize("way", ["build", "run"])
def test_planted_secrets_stay_where_they_belong(
    pytester: pytest.Pytester, shop: Shop, private_registry: Registry, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("MAD_SECRETS_SHELL", PLANTED["MAD_SECRETS_SHELL"])
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("tmp")))
    args = indiscreet(shop, private_registry)
    more = ["--madengine-build-only", f"--madengine-registry={private_registry.address}"] if way == "build" else []
    given = {path for path in shop.folder.rglob("*") if path.is_file()}

    with Spy("planted-") as spy:
        shown = ("--madengine-live-output", "--junitxml=junit.xml", "-vv", "--showlocals")
        result = run_bare(pytester, *args, *more, *shown)
    result.assert_outcomes(passed=1, errors=1)
    values = [*PLANTED.values(), LOGIN.password]
    assert [value for value in values for line in [*result.outlines, *result.errlines] if value in line] == []
    assert spy.seen == []
    written = [path for path in shop.folder.rglob("*") if path.is_file() and path not in given]
    assert len(written) > 8
    assert [(path, value) for path in written for value in values if value.encode() in path.read_bytes()] == []
    logs = "".join(path.read_text() for path in shop.folder.glob(".madengine/runs/latest/images/*/build.log"))
    assert logs.count("***") > 4
    if way == "build":
        manifest = shop.manifest()
        assert manifest["secrets_required"] == ["HF_TOKEN", "WANDB_API_KEY"]
        assert manifest["credentials_required"] == ["site"]
