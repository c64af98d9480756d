"""The columns of perf.csv, a format shared with the replaced tool."""

from __future__ import annotations

PERF_COLUMNS = (
    "model",
    "n_gpus",
    "nnodes",
    "gpus_per_node",
    "training_precision",
    "pipeline",
    "args",
    "tags",
    "docker_file",
    "base_docker",
    "docker_sha",
    "docker_image",
    "git_commit",
    "machine_name",
    "deployment_type",
    "launcher",
    "gpu_architecture",
    "performance",
    "metric",
    "relative_change",
    "status",
    "build_duration",
    "test_duration",
    "dataname",
    "data_provider_type",
    "data_size",
    "data_download_duration",
    "build_number",
    "additional_docker_run_options",
)
SUPER_COLUMNS = (*PERF_COLUMNS, "configs", "multi_results")
"""perf_super adds the content of the `--config` file and the further columns of a results CSV."""

SUCCESS, FAILURE, SKIPPED = "SUCCESS", "FAILURE", "SKIPPED"
