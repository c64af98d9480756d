"""Launchers turn a topology into environment and a command prefix."""
