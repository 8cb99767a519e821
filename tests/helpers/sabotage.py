"""Makes one trial of a search fail, from outside and without any help of the program."""

from pathlib import Path
from typing import Any

from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings


def sabotage(run: Path, *, smooth_rate: float, **settings: Any) -> str:
    """Put a file where a search that has not begun must make the folder of a start point's trial; return its name."""
    plan = make_plan(check_search_settings(**{"dataset": "twonorm", **settings}), 0, progress=False)
    (level,) = plan.levels
    config = plan.space.default(smooth_rate=smooth_rate)
    trial_id = LevelData(plan).trial(level.level, plan.training_settings(config)).trial_id
    place = run / "checkpoints" / trial_id
    place.parent.mkdir(parents=True)
    place.write_text("not a folder")
    return trial_id
