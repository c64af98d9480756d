"""Runs jobs on backends and keeps what they give."""
