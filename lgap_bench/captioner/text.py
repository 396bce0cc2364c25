"""Caption sources that do not look at the image: empty, fixed, given, and two diagnostics that read the label."""

from __future__ import annotations

from torch import Tensor, nn

from lgap_bench.dataset.base import DataSet
from lgap_bench.noise import Noise, derive
from lgap_bench.runtime.text import read_captions


class Fixed(nn.Module):
    """The same sentence for every image; with an empty one LGAP is img2img without language."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.text = text

    def forward(self, x: Tensor, noise: Noise) -> list[str]:
        """The sentence, once per image."""
        return [self.text] * len(x)


class Given(nn.Module):
    """Captions made elsewhere, the same whatever is done to the image: a JSON object of sample id -> caption."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.captions = read_captions(file, "captioner.file")
        self.file = file

    def forward(self, x: Tensor, noise: Noise) -> list[str]:
        """The caption of each sample id. Raises ValueError naming the first sample without one."""
        for sample in noise.ids:
            if sample not in self.captions:
                raise ValueError(f"captioner.file={self.file} has no caption for sample {sample}: add it")
        return [self.captions[sample] for sample in noise.ids]


class Oracle(nn.Module):
    """The template with the true class: what a captioner that no attack can move would say. A diagnostic, it cheats."""

    def __init__(self, dataset: DataSet) -> None:
        super().__init__()
        self.captions = [dataset.true_caption(label) for label in range(len(dataset.classes))]
        self.label = dict(zip(dataset.ids.tolist(), dataset.labels.tolist(), strict=True))

    def forward(self, x: Tensor, noise: Noise) -> list[str]:
        """The true caption of each sample id."""
        return [self.captions[self.label[sample]] for sample in noise.ids]


class Wrong(Oracle):
    """The template with a wrong class, uniform over the others, drawn by (seed, sample id): what misleading costs."""

    def forward(self, x: Tensor, noise: Noise) -> list[str]:
        """A wrong caption of each sample id, the same in every draw of a seed."""
        others = len(self.captions) - 1
        # By the cell's seed and not by the draw's key: one sample is misled in one way throughout.
        shifts = [1 + derive(noise.seed, "wrong caption", sample) % others for sample in noise.ids]
        return [
            self.captions[(self.label[sample] + shift) % (others + 1)]
            for sample, shift in zip(noise.ids, shifts, strict=True)
        ]
