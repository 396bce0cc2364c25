"""The timesteps a purification visits, against diffusers' img2img schedule."""

from __future__ import annotations

import pytest

from lgap_bench.prior.timesteps import targets, timesteps


def diffusers_times(steps: int, strength: float, spacing: str, offset: int) -> tuple[list[int], list[int]]:
    """What `StableDiffusionImg2ImgPipeline.get_timesteps` and `DDIMScheduler.step` visit and step to."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    visited = scheduler.timesteps.tolist()[steps - min(int(steps * strength), steps) :]
    return visited, [t - scheduler.config.num_train_timesteps // steps for t in visited]


# At 62 uncommon step counts from 61 up diffusers' own trailing schedule has a step too many (np.arange); none is here.
@pytest.mark.parametrize("steps", [1, 3, 5, 7, 10, 20, 48, 50, 96, 100, 112, 250, 333, 999])
@pytest.mark.parametrize("strength", [0.1, 0.29, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("spacing, offset", [("leading", 1), ("leading", 0), ("trailing", 0)])
def test_times_equal_diffusers(steps, strength, spacing, offset):
    if int(steps * strength) == 0:
        with pytest.raises(ValueError, match="leaves no step"):
            timesteps(steps, strength, None, spacing, 1000, offset)
        return
    visited, reached = diffusers_times(steps, strength, spacing, offset)
    ours = timesteps(steps, strength, None, spacing, 1000, offset)
    assert ours == visited
    assert targets(ours, steps, None) == reached


@pytest.mark.parametrize(
    "steps, start, visited", [(1, 1, [1]), (1, 999, [999]), (2, 500, [500, 250]), (5, 5, [5, 4, 3, 2, 1])]
)
def test_an_explicit_start_is_spaced_evenly_down_to_the_end(steps, start, visited):
    assert timesteps(steps, None, start, "leading") == visited
    assert targets(visited, steps, start) == [*visited[1:], -1]


@pytest.mark.parametrize("steps", [1, 4, 7, 99, 640, 999])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_times_always_fall_and_stay_inside_the_model(steps, spacing):
    for visited in (timesteps(steps, 1.0, None, spacing, 1000, 1), timesteps(steps, None, 999, spacing)):
        assert len(visited) == steps
        assert visited == sorted(set(visited), reverse=True)
        assert visited[0] <= 999
        assert visited[-1] >= 0


BAD = [
    # steps, strength, start, spacing -> key, and what would be right
    ((10, 0.5, 300, "leading"), "purifier.strength=0.5 and purifier.start=300: give exactly one"),
    ((10, None, None, "leading"), "purifier.strength=None and purifier.start=None: give exactly one"),
    ((0, 0.5, None, "leading"), r"purifier.steps=0 is not in \[1, 1000\]"),
    ((1001, 0.5, None, "leading"), r"purifier.steps=1001 is not in \[1, 1000\]"),
    ((10, 0.0, None, "leading"), r"purifier.strength=0.0 is not in \(0, 1\]: write 0.5"),
    ((10, 1.1, None, "leading"), r"purifier.strength=1.1 is not in \(0, 1\]"),
    ((10, float("nan"), None, "leading"), r"purifier.strength=nan is not in \(0, 1\]"),
    ((5, 0.1, None, "leading"), "purifier.strength=0.1 of purifier.steps=5 leaves no step"),
    ((9, 1 / 10, None, "trailing"), "leaves no step"),
    ((10, None, 9, "leading"), r"purifier.start=9 is not in \[10, 999\]"),
    ((10, None, 1000, "leading"), r"purifier.start=1000 is not in \[10, 999\]"),
    ((10, 0.5, None, "linspace"), "purifier.spacing=linspace is not known: use leading or trailing"),
    ((1000, 1.0, None, "leading"), "starts at timestep 1000, past the model's last, 999"),
]


@pytest.mark.parametrize("settings, message", BAD)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        timesteps(*settings, train_steps=1000, offset=1)
    assert "\n" not in str(caught.value)
