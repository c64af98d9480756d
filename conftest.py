"""The one place where pytest lets a project load pytester."""

pytest_plugins = ["pytester"]
