"""Dockerfiles, content identities and builds."""
