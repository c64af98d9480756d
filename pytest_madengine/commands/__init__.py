"""The subcommands of `pytest-madengine`, one module each; the only modules that print."""
