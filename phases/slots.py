"""Where inputs that several phases share come from: made in this plan, or given by the recipe."""

from __future__ import annotations

from stillhouse.schemas.plan import Need
from stillhouse.schemas.recipe import Recipe


def checkpoint(recipe: Recipe) -> Need:
    """The checkpoint: training's, else the given one."""
    if recipe.training is not None:
        return Need(role="checkpoint", slot="training", output="checkpoint")
    return Need(role="checkpoint", digest=recipe.given.checkpoint)


def dataset(recipe: Recipe) -> Need | None:
    """The data set: the dataset phase's, else the given one, else none."""
    if recipe.dataset is not None:
        return Need(role="dataset", slot="dataset", output="dataset")
    if recipe.given.dataset is not None:
        return Need(role="dataset", digest=recipe.given.dataset)
    return None
