"""Volumes for claims: folders of this machine, which all nodes share."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.engines.kubeparts.api import Api, Mirror, Object, now

PROVISIONER = "tests/folders"
DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}
CLASSES: list[Object] = [
    {"metadata": {"name": "local-test", "annotations": DEFAULT}, "provisioner": PROVISIONER},
    {"metadata": {"name": "single-test"}, "provisioner": PROVISIONER},
]
"""The first can be shared by nodes, the second cannot."""
ALONE = ["ReadWriteOnce"]


class Volumes:
    """Makes a volume for each claim of our classes, and removes it with the claim.

    Args:
        api: the cluster.
        folder: where the volumes are.
    """

    def __init__(self, api: Api, folder: Path) -> None:
        self._api, self._folder = api, folder
        api.provide("/apis/storage.k8s.io/v1/storageclasses", *CLASSES)
        Mirror(api, "/api/v1/persistentvolumeclaims", self._see_claim)
        Mirror(api, "/api/v1/persistentvolumes", self._see_volume)

    def _see_claim(self, claim: Object) -> None:
        spec = claim["spec"]
        ours = spec.get("storageClassName") in {each["metadata"]["name"] for each in CLASSES}
        if not ours or spec.get("volumeName") or claim["metadata"].get("deletionTimestamp"):
            return
        if spec["storageClassName"] == "single-test" and spec["accessModes"] != ALONE:
            self._complain(claim)
            return
        name = f"pvc-{claim['metadata']['uid']}"
        if not (self._folder / name).exists():
            self._make(name, claim)

    def _make(self, name: str, claim: Object) -> None:
        (self._folder / name).mkdir(parents=True)
        (self._folder / name).chmod(0o777)
        spec = {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": claim["spec"]["resources"]["requests"],
            "storageClassName": claim["spec"]["storageClassName"],
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": str(self._folder / name)},
            "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", **_identity(claim)},
        }
        notes = {"pv.kubernetes.io/provisioned-by": PROVISIONER}
        self._api.provide("/api/v1/persistentvolumes", {"metadata": {"name": name, "annotations": notes}, "spec": spec})

    def _complain(self, claim: Object) -> None:
        where = claim["metadata"]["namespace"]
        event = {
            "metadata": {"generateName": "refused-", "namespace": where},
            "involvedObject": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", **_identity(claim)},
            "type": "Warning",
            "reason": "ProvisioningFailed",
            "message": f"invalid AccessModes {claim['spec']['accessModes']}: only {ALONE} are supported",
            "source": {"component": PROVISIONER},
            "firstTimestamp": (moment := now()[:19] + "Z"),
            "lastTimestamp": moment,
            "count": 1,
        }
        self._api.ask("POST", f"/api/v1/namespaces/{where}/events", event)

    def _see_volume(self, volume: Object) -> None:
        ours = (volume["metadata"].get("annotations") or {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        if ours and volume["status"].get("phase") == "Released" and "deletionTimestamp" not in volume["metadata"]:
            shutil.rmtree(self._folder / volume["metadata"]["name"], ignore_errors=True)
            self._api.remove(f"/api/v1/persistentvolumes/{volume['metadata']['name']}")


def _identity(claim: Object) -> Object:
    return {name: claim["metadata"][name] for name in ("namespace", "name", "uid")}
