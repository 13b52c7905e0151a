from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stillhouse.schemas.recipe import Recipe, StudentSection

DIGEST = "ab" * 32
SMALL: dict[str, Any] = {
    "name": "r",
    "policy": DIGEST,
    "given": {"checkpoint": DIGEST},
    "export": {"prefill": [8], "primary": 8},
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verification": {}}, "[verification] needs [conversion]"),
        ({"given": {}}, "[export] needs [training]"),
        ({"training": {"steps": 1}}, "[training] needs [dataset]"),
        ({"evaluation": {}}, "[evaluation] needs [dataset]"),
        ({"deployment": {}}, "[deployment] needs [conversion]"),
        ({"export": {"prefill": [8], "primary": 9}}, "`primary` must be one of"),
        ({"export": {"prefill": [8, 8], "primary": 8}}, "lists a length twice"),
        ({"tier": "tier_9"}, "tier"),
        ({"nmae": "x"}, "nmae"),
        ({"name": "../x"}, "name"),
    ],
)
def test_a_recipe_that_cannot_work_says_why(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(SMALL | change)
    assert says in str(caught.value)


@pytest.mark.parametrize("student", [{}, {"layers": [0], "hidden_size": 8}, {"hidden_size": 8}])
def test_a_student_comes_from_layers_or_from_a_whole_shape(student: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StudentSection.model_validate(student)


def test_a_resolved_recipe_reads_back_equal() -> None:
    recipe = Recipe.model_validate(SMALL)
    assert Recipe.model_validate(recipe.to_json()) == recipe
