"""What a job's container looks like, wherever it runs."""

from __future__ import annotations

JOB, PROJECT, WORKSPACE = "/madengine/job", "/madengine/project", "/myworkspace"
PLACES = {"MADENGINE_JOB": JOB, "MADENGINE_PROJECT": PROJECT, "MADENGINE_WORKSPACE": WORKSPACE}
"""The variables by which the job's script knows them."""
RUN_LABEL, JOB_LABEL = "madengine.run", "madengine.job"
PRESETS = {"AMD": "docker/amd", "NVIDIA": "docker/nvidia"}
"""Files of presets/ by the GPUs' vendor."""
DEFAULT_PRESET = PRESETS["AMD"]
