"""From an outcome to a result: pure functions."""
