from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pytest_madengine.results.metric import Direction, Metric
from pytest_madengine.results.references import Policy, Reference, applying, names_of, policy_of

RATE = Metric("llama", "performance", 100.0, "samples_per_second")
TIME = Metric("llama", "latency", 12.0, "ms", Direction.LOWER)


def policy(metric: Metric, **stated: Any) -> Policy:
    return policy_of(metric, Reference.model_validate(stated))


class TestReference:
    @pytest.mark.parametrize(
        ("stated", "valid"),
        [
            ({"value": 0}, "a finite number other than 0"),
            ({"value": float("nan")}, "a finite number other than 0"),
            ({"value": "fast"}, "valid number"),
            ({"value": 1, "lower": -5}, "from -1 to 0"),
            ({"value": 1, "lower": 0.05}, "from -1 to 0"),
            ({"value": 1, "upper": 5}, "from 0 to 1"),
            ({"value": 1, "upper": -0.05}, "from 0 to 1"),
            ({"value": 1, "direction": "up"}, "'higher' or 'lower'"),
            ({"valu": 1}, "Extra inputs"),
        ],
    )
    def test_what_cannot_be_meant(self, stated: dict[str, Any], valid: str) -> None:
        with pytest.raises(ValidationError, match=valid):
            Reference.model_validate(stated)

    def test_all_may_be_left_out(self) -> None:
        assert Reference.model_validate({"gate": True}).value is None


class TestPolicy:
    def test_performance_gates_and_other_metrics_are_watched(self) -> None:
        assert policy(RATE).gates
        assert not policy(TIME).gates
        assert policy(TIME, gate=True).gates
        assert not policy(RATE, gate=False).gates

    def test_five_percent_for_the_worse_are_allowed_where_nobody_says(self) -> None:
        assert (policy(RATE).lower, policy(RATE).upper) == (-0.05, None)
        assert (policy(TIME).lower, policy(TIME).upper) == (None, 0.05)
        assert not policy(RATE).stated

    def test_the_bound_on_the_worse_side_counts(self) -> None:
        assert policy(RATE, lower=-0.1, upper=0.2).allowed == pytest.approx(0.1)
        assert policy(TIME, lower=-0.1, upper=0.2).allowed == pytest.approx(0.2)
        assert policy(RATE, lower=-0.1, upper=0.2).better == pytest.approx(0.2)
        assert policy(RATE, lower=-0.1).better == pytest.approx(0.1)

    def test_the_direction_is_stated_or_follows_from_the_unit(self) -> None:
        assert policy(RATE).direction is Direction.HIGHER
        assert policy(TIME).direction is Direction.LOWER
        assert policy(RATE, unit="ms").direction is Direction.LOWER
        assert policy(TIME, direction="higher").direction is Direction.HIGHER
        assert policy(TIME).worse(0.1) == pytest.approx(0.1)
        assert policy(RATE).worse(0.1) == pytest.approx(-0.1)


class TestApplying:
    REFERENCES = {  # noqa: RUF012  # of a test
        "*": {"performance": Reference(value=1), "latency": Reference(value=2)},
        "gfx942": {"performance": Reference(value=3)},
        "MI250X": {"performance": Reference(value=4)},
    }

    def values(self, architecture: str) -> dict[str, float | None]:
        found = applying(self.REFERENCES, architecture, "models.json:3 references")
        return {name: each.reference.value for name, each in found.items()}

    @pytest.mark.parametrize("name", ["gfx942", "GFX942", "MI300X", "gfx942:sramecc+:xnack-"])
    def test_an_architecture_of_its_own_wins(self, name: str) -> None:
        assert self.values(name) == {"performance": 3, "latency": 2}

    def test_product_names_are_known_in_references_too(self) -> None:
        assert self.values("gfx90a") == {"performance": 4, "latency": 2}

    @pytest.mark.parametrize("name", ["sm_90", ""])
    def test_others_have_what_is_said_of_all(self, name: str) -> None:
        assert self.values(name) == {"performance": 1, "latency": 2}

    def test_each_knows_its_place(self) -> None:
        found = applying(self.REFERENCES, "gfx942", "models.json:3 references")
        assert found["performance"].place == "models.json:3 references.gfx942"
        assert found["latency"].place == "models.json:3 references.*"


def test_a_row_is_named_with_and_without_its_model() -> None:
    assert names_of(Metric("llama_b32", "latency", 1.0), "llama") == ("llama_b32/latency", "b32/latency", "latency")
