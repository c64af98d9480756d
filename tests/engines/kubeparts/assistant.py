"""The one process that serves what the cluster lacks: names, volumes and webhooks.

assistant.py ETC ADDRESS VOLUMES: the folder that describes the cluster, where to answer DNS, where volumes are made.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tests.engines.kubeparts import admission, names
from tests.engines.kubeparts.api import Api, Mirror
from tests.engines.kubeparts.volumes import Volumes


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    folder, address, volumes = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    api = Api(folder)
    api.until_ready()
    admission.serve(api, folder)
    Volumes(api, volumes)
    urgent = {"metadata": {"name": "urgent-test"}, "value": 1000, "description": "before others"}
    api.provide("/apis/scheduling.k8s.io/v1/priorityclasses", urgent)
    names.serve(address, Mirror(api, "/api/v1/endpoints"))


if __name__ == "__main__":
    main()
