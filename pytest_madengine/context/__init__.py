"""The merged configuration and the machine it applies to."""
