"""AI models as pytest items. The public names are in `__all__`; importing this module imports nothing heavy."""

__version__ = "0.1.0"
__all__ = ["__version__"]
