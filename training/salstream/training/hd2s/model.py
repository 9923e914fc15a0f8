"""HD2S: conspicuity maps from four depths of S3D, fused into one saliency map.

The state dict has the published names, so the authors' checkpoints load with
``strict=True``. Where code and paper differ: the order of fusion (deepest first), the
layers' sizes and the rounding before HD2S-DSL's smoothing (off unless asked for) are the
code's. What happens around the network (the first frames of a video, the final smoothing)
is the paper's, and not done here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from salstream.runtime.errors import UsageError
from salstream.training.hd2s.adaptation import (
    domain_classifier,
    feature_reduction,
    reverse_gradient,
)
from salstream.training.hd2s.config import CLIP_LENGTHS, CONFIGS, DOMAINS, LEVELS, WINDOW, Config
from salstream.training.hd2s.conspicuity import GaussianSmoothing, decoder, temporal_convolution
from salstream.training.layers import DomainSequential, gaussian_maps, initial_gaussians
from salstream.training.s3d import Backbone


class Prediction(NamedTuple):
    """What the network says about each clip's last frame.

    Attributes:
        saliency: (batch, height, width), in [0, 1].
        conspicuity: (batch, levels, height, width), in [0, 1], shallow to deep; None if the
            network does not give them.
        domains: Logarithms of the probabilities of source and target, (batch, levels, 2),
            shallow to deep; None unless asked for.
    """

    saliency: Tensor
    conspicuity: Tensor | None = None
    domains: Tensor | None = None


class Hd2s(nn.Module):
    """Any member of the family; `Config` says which parts it has.

    The layers of Conspicuity-net ``n`` are called ``n + 1`` in the state dict, like the
    backbone's block that it reads.
    """

    def __init__(self, config: Config = CONFIGS["hd2s"]) -> None:
        super().__init__()
        self.config = config
        n_priors = 0
        if config.priors:
            n_priors = len(initial_gaussians())
            for domain in DOMAINS:
                for level in config.levels:
                    gaussians = nn.Parameter(initial_gaussians())
                    self.register_parameter(f"gaussians{level + 1}__{domain}", gaussians)
        self.featureExtractor = Backbone(depth=config.levels[-1] + 1)
        for level in reversed(config.levels):
            facts = LEVELS[level]
            for name in temporal_names(level):
                self.add_module(name, temporal_convolution(facts.channels))
            layers = decoder(facts, level + 1, facts.channels + n_priors, config.domain_norm)
            self.add_module(f"decoder{level + 1}", layers)
        if config.domain_smoothing:
            for domain in DOMAINS:
                self.add_module(f"last_block__{domain}", nn.Sequential(self._fusion()))
                self.add_module(f"GL__{domain}", GaussianSmoothing())
        elif len(config.levels) > 1:
            self.last_conv = self._fusion()
        if config.adaptation:
            for level in reversed(config.levels):
                facts = LEVELS[level]
                self.add_module(f"featureReduction{level + 1}", feature_reduction(facts))
                classifier = domain_classifier(facts, config.size)
                self.add_module(f"domainClassifier{level + 1}", classifier)

    def gaussians(self, level: int, domain: str) -> Tensor:
        """Return the learned priors of a level and domain, (16, 2, 2)."""
        return self.get_parameter(f"gaussians{level + 1}__{domain}")

    def decoder(self, level: int) -> DomainSequential:
        """Return a level's decoder: features, and priors after them, to (batch, 1, …)."""
        layers = self.get_submodule(f"decoder{level + 1}")
        assert isinstance(layers, DomainSequential)
        return layers

    def fusion(self, domain: str = "") -> nn.Conv2d | None:
        """Return the 1×1 convolution over the maps, deepest first; None if there is one map."""
        if self.config.domain_smoothing:
            layer = self.get_submodule(f"last_block__{domain}.0")
        elif len(self.config.levels) > 1:
            layer = self.last_conv
        else:
            return None
        assert isinstance(layer, nn.Conv2d)
        return layer

    def smoothing(self, domain: str = "") -> GaussianSmoothing | None:
        """Return a domain's Gaussian filter; None if the network smooths nothing."""
        if not self.config.domain_smoothing:
            return None
        layer = self.get_submodule(f"GL__{domain}")
        assert isinstance(layer, GaussianSmoothing)
        return layer

    def forward(
        self, clips: Tensor, domain: str | None = None, reversal: float | None = None
    ) -> Prediction:
        """Predict one map per clip.

        Args:
            clips: Normalised RGB (see :func:`normalise`), (batch, 3, time, height, width),
                oldest first; 16 frames in the paper, 5 to 16 possible; height and width
                multiples of ``config.size_multiple`` (32 with all levels).
            domain: One of ``DOMAINS``; needed if the network is domain-specific, otherwise
                it does not matter.
            reversal: Ask the domain classifiers too; the features then get ``-reversal``
                times their gradient (λ in the paper).

        Raises:
            UsageError: The clips' size or length does not fit, or the domain or the
                classifiers asked for are not there.
        """
        self._check(clips, domain, reversal)
        domain = domain or ""
        features = self.encode(clips)
        maps = [self._conspicuity(level, x, domain) for level, x in features.items()]
        domains = None
        if reversal is not None:
            answers = [self.classify(level, x, reversal) for level, x in features.items()]
            domains = torch.stack(answers, dim=1)
        return Prediction(
            self._fuse(maps, domain).squeeze(1),
            torch.cat(maps, dim=1) if self.config.multi_level else None,
            domains,
        )

    def encode(self, clips: Tensor) -> dict[int, Tensor]:
        """Return each level's features, shallow to deep, time removed.

        Args:
            clips: As in :meth:`forward`.

        Returns:
            Per level (batch, channels, height/stride, width/stride).
        """
        taps = self.featureExtractor(clips)
        features = {}
        for level in self.config.levels:
            x = taps[level]
            for name in temporal_names(level):
                x = self.get_submodule(name)(x)
            features[level] = x.squeeze(2)
        return features

    def classify(self, level: int, features: Tensor, reversal: float) -> Tensor:
        """Tell source from target by a level's features.

        Args:
            level: Its number, 1 to 4.
            features: (batch, channels, height, width), see :meth:`encode`.
            reversal: The features get ``-reversal`` times their gradient.

        Returns:
            Log-probabilities of source and target, (batch, 2).
        """
        x = reverse_gradient(features, reversal)
        x = self.get_submodule(f"featureReduction{level + 1}")(x).flatten(1)
        answer: Tensor = self.get_submodule(f"domainClassifier{level + 1}")(x)
        return answer

    def _conspicuity(self, level: int, features: Tensor, domain: str) -> Tensor:
        """Return (batch, 1, height, width)."""
        if self.config.priors:
            priors = gaussian_maps(self.gaussians(level, domain), features.shape[-2:])
            features = torch.cat([features, priors.expand(features.shape[0], -1, -1, -1)], dim=1)
        conspicuity: Tensor = self.decoder(level)(features, DOMAINS.get(domain, ""))
        return conspicuity

    def _fuse(self, maps: list[Tensor], domain: str) -> Tensor:
        """Return (batch, 1, height, width) from the levels' maps, shallow to deep."""
        fusion, smoothing = self.fusion(domain), self.smoothing(domain)
        fused = maps[0]
        if fusion is not None:
            fused = torch.sigmoid(fusion(torch.cat(maps[::-1], dim=1)))
        if self.config.rounding:
            fused = torch.floor(fused * 255) / 255
        if smoothing is not None:
            fused = smoothing(fused)
        return fused

    def _fusion(self) -> nn.Conv2d:
        return nn.Conv2d(len(self.config.levels), 1, 1)

    def _check(self, clips: Tensor, domain: str | None, reversal: float | None) -> None:
        time, height, width = clips.shape[-3:]
        if time not in CLIP_LENGTHS:
            raise UsageError(
                f"HD2S takes clips of {CLIP_LENGTHS[0]} to {CLIP_LENGTHS[-1]} frames "
                f"({WINDOW} in the paper), got {time}"
            )
        self.config.check_size(height, width)
        if self.config.domain_specific and domain not in DOMAINS:
            raise UsageError(f"expected one of the domains {', '.join(DOMAINS)}, got {domain}")
        if reversal is None:
            return
        if not self.config.adaptation:
            raise UsageError("this network has no domain classifiers; leave reversal out")
        if (height, width) != self.config.size:
            made_for = "x".join(map(str, self.config.size))
            raise UsageError(
                f"the domain classifiers were made for {made_for}, got clips of "
                f"{height}x{width}; give Config that size"
            )


def temporal_names(level: int) -> list[str]:
    """Return the published names of a level's temporal convolutions, in order."""
    count = LEVELS[level].temporal
    name = f"conv_t{level + 1}"
    return [name] if count == 1 else [f"{name}_{index}" for index in range(1, count + 1)]
