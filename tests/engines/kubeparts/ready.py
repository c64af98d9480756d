"""ready.py ETC NODE...: exits with 0 if the cluster answers, has what the assistant makes and these nodes take pods."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.engines.kubeparts.admission import FAKE
from tests.engines.kubeparts.api import TROUBLE, Api, Object
from tests.engines.kubeparts.volumes import CLASSES

NEEDED = (
    "/readyz",
    "/api/v1/namespaces/default/serviceaccounts/default",
    "/apis/scheduling.k8s.io/v1/priorityclasses/urgent-test",  # which the assistant makes last
    f"/apis/storage.k8s.io/v1/storageclasses/{CLASSES[-1]['metadata']['name']}",
)


def takes_pods(node: Object) -> bool:
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
    away = [each for each in node["spec"].get("taints") or [] if each["key"] != FAKE]
    return ready and not away and node["status"]["allocatable"].get("amd.com/gpu") == "8"


def main() -> None:
    try:
        api = Api(Path(sys.argv[1]))
        for path in NEEDED:
            api.ask("GET", path)
        bad = [name for name in sys.argv[2:] if not takes_pods(api.ask("GET", f"/api/v1/nodes/{name}"))]
    except TROUBLE as error:
        sys.exit(repr(error))
    sys.exit(f"not ready: {bad}" if bad else 0)


if __name__ == "__main__":
    main()
