"""The members of the HD2S family: what each level of the network is, and which parts are there.

HD2S: Bellitto et al., 'Hierarchical Domain-Adapted Feature Learning for Video Saliency
Prediction', IJCV 2021. SalGradNet is its preprint, whose appendix has the layers' sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from salstream.runtime.errors import UsageError

SIZE: Final = (128, 192)
WINDOW: Final = 16
WINDOW_FPS: Final = 30.0  # of DHF1K, whose frames the clips take one by one
# Shorter or longer clips leave no step in time, or more than one, for the decoders.
CLIP_LENGTHS: Final = range(5, WINDOW + 1)
# Each domain's name for us, and inside the published BatchNorm entries.
DOMAINS: Final = {"dhf1k": "DHF1K", "hollywood": "Hollywood", "ucfsports": "UCFSports"}


@dataclass(frozen=True)
class Level:
    """One Conspicuity-net, from its tap in the backbone on (preprint, appendix A).

    Attributes:
        channels: Channels of the backbone's features.
        stride: Pixels of the input per pixel of the features.
        temporal: Temporal convolutions; each halves the time axis.
        stages: Per decoder stage, its channels and its separable convolutions. Every stage
            doubles the size.
        reduction: Channels of the domain branch's 1×1 convolutions.
        hidden: Widths of the domain classifier's hidden layers.
    """

    channels: int
    stride: int
    temporal: int
    stages: tuple[tuple[int, int], ...]
    reduction: tuple[int, ...]
    hidden: tuple[int, ...]


_DEEP_STAGES = ((512, 2), (256, 2), (128, 1), (64, 1), (3, 1))
# The published names count these levels, and the backbone's blocks, 2 to 5.
LEVELS: Final = {
    1: Level(192, 8, 3, ((128, 1), (64, 1), (3, 1)), (64, 32, 4), (512, 128, 32)),
    2: Level(480, 16, 2, ((256, 1), (128, 1), (64, 1), (3, 1)), (64, 4), (64, 16)),
    3: Level(832, 32, 1, _DEEP_STAGES, (128, 16), (64, 16)),
    4: Level(1024, 32, 1, _DEEP_STAGES, (512, 64, 16), (64, 16)),
}


@dataclass(frozen=True)
class Config:
    """Which parts of the family a network has.

    Attributes:
        levels: Its Conspicuity-nets, 1 (shallow) to 4 (deep), ascending. With one alone
            there is nothing to fuse: its map is the prediction.
        multi_level: Give the conspicuity maps too, for the multi-level loss.
        adaptation: A domain classifier behind gradient reversal per level (HD2S-DA).
        size: Height and width that the domain classifiers are made for.
        priors: 16 learned Gaussian priors per level and domain (HD2S-DSL).
        domain_norm: Domain-specific BatchNorm in the decoders (HD2S-DSL).
        domain_smoothing: Fusion and a learned Gaussian filter per domain (HD2S-DSL).
        rounding: Round the fused map down to 1/255 before that filter, as the published
            code does. No gradient passes, so training leaves it off.

    Raises:
        UsageError: The parts do not go together.
    """

    levels: tuple[int, ...] = (1, 2, 3, 4)
    multi_level: bool = True
    adaptation: bool = False
    size: tuple[int, int] = SIZE
    priors: bool = False
    domain_norm: bool = False
    domain_smoothing: bool = False
    rounding: bool = False

    def __post_init__(self) -> None:
        if not self.levels or self.levels != tuple(sorted(set(self.levels) & set(LEVELS))):
            raise UsageError(
                f"expected some of the levels {', '.join(map(str, LEVELS))}, ascending, "
                f"got {self.levels}"
            )
        if self.adaptation and self.domain_specific:
            raise UsageError(
                "domain adaptation and domain-specific learning exclude each other; "
                "switch one of them off"
            )
        if self.rounding and not self.domain_smoothing:
            raise UsageError("the rounding belongs to the domain's smoothing; switch that on too")
        self.check_size(*self.size)

    @property
    def domain_specific(self) -> bool:
        """Whether the network needs to be told the domain."""
        return self.priors or self.domain_norm or self.domain_smoothing

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        return LEVELS[self.levels[-1]].stride

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size that the network cannot take.

        Raises:
            UsageError: It is no multiple of ``size_multiple``; the message names that.
        """
        multiple = self.size_multiple
        if height % multiple or width % multiple or min(height, width) < multiple:
            raise UsageError(
                f"HD2S cannot take {height}x{width}: height and width must be multiples of "
                f"{multiple}"
            )


_DSL = Config(priors=True, domain_norm=True, domain_smoothing=True)
_DA = Config(adaptation=True)
CONFIGS: Final = {
    "hd2s": Config(),
    "hd2s-da": _DA,
    "hd2s-dsl": _DSL,
    "salgradnet": _DA,
    # HD2S, Table 3: Conspicuity-nets one at a time, the loss on the output alone.
    "hd2s-net4": Config(levels=(4,), multi_level=False),
    "hd2s-net34": Config(levels=(3, 4), multi_level=False),
    "hd2s-net234": Config(levels=(2, 3, 4), multi_level=False),
    "hd2s-net1234": Config(multi_level=False),
    # HD2S, Table 4: the others alone.
    "hd2s-net1": Config(levels=(1,), multi_level=False),
    "hd2s-net2": Config(levels=(2,), multi_level=False),
    "hd2s-net3": Config(levels=(3,), multi_level=False),
}
