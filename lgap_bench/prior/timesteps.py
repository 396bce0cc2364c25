"""Which timesteps a purification visits. Without torch, so that settings that leave no step are refused at once."""

from __future__ import annotations

from typing import Literal

from lgap_bench.runtime.choices import require_choice

Spacing = Literal["leading", "trailing"]


def timesteps(
    steps: int, strength: float | None, start: int | None, spacing: Spacing, train_steps: int = 1000, offset: int = 0
) -> list[int]:
    """The decreasing integer timesteps t_1 > ... > t_k at which the network is called; t_1 is the noise level of z_t*.

    Args:
        steps: length of the full schedule (with `strength`), or the number of calls (with `start`).
        strength: fraction of the schedule that is run, in (0, 1]; int(steps * strength) calls, as in img2img pipelines.
        start: explicit first timestep; `steps` calls evenly spaced from it down to 0. Excludes `strength`.
        spacing: `leading` (Stable Diffusion: multiples of train_steps // steps, plus `offset`) or `trailing` (counted
            down from the last step). With few steps `leading` starts far below strength * train_steps.
    """
    require_choice("purifier.spacing", spacing, Spacing)
    if (strength is None) == (start is None):
        raise ValueError(
            f"purifier.strength={strength} and purifier.start={start}: give exactly one of them, the other null"
        )
    if not 1 <= steps <= train_steps:
        raise ValueError(f"purifier.steps={steps} is not in [1, {train_steps}]")
    if start is not None:
        if not steps <= start < train_steps:
            raise ValueError(
                f"purifier.start={start} is not in [{steps}, {train_steps - 1}]: a timestep that leaves room for purifier.steps={steps} calls"
            )
        return [round(start - i * start / steps) for i in range(steps)]
    assert strength is not None
    if not 0 < strength <= 1:
        raise ValueError(f"purifier.strength={strength} is not in (0, 1]: write 0.5")
    calls = int(steps * strength)
    if calls == 0:
        raise ValueError(
            f"purifier.strength={strength} of purifier.steps={steps} leaves no step: raise one so that their product is at least 1"
        )
    if spacing == "leading":
        full = [i * (train_steps // steps) + offset for i in range(steps)][::-1]
    else:
        stride = (train_steps - train_steps / steps) - train_steps  # numpy.arange's, so that halves round as diffusers'
        full = [round(train_steps + i * stride) - 1 for i in range(steps)]
    visited = full[steps - calls :]
    if visited[0] >= train_steps:
        raise ValueError(
            f"purifier.steps={steps} with spacing={spacing} starts at timestep {visited[0]}, past the model's last, "
            f"{train_steps - 1}: use fewer steps"
        )
    return visited


def targets(times: list[int], steps: int, start: int | None, train_steps: int = 1000) -> list[int]:
    """The timestep each call steps to; below 0 is the end of the trajectory.

    With an explicit `start` the next time. Else t - train_steps // steps as in diffusers' DDIM, which is the next time
    too, but for `trailing` schedules whose steps do not divide train_steps: there it may lie one beside it.
    """
    return [*times[1:], -1] if start is not None else [t - train_steps // steps for t in times]
