"""A network made for a recipe, and what a batch costs it: one function per family."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from salstream.runtime.errors import SalstreamError
from salstream.training import esan, hd2s, networks, unisal
from salstream.training.checkpoints import load_state_dict
from salstream.training.clips import Batch
from salstream.training.losses import domain_loss, esan_loss, multi_level_kld, unisal_loss
from salstream.training.recipes.config import Recipe
from salstream.training.s3d import Backbone, load_kinetics

_log = logging.getLogger("salstream")

# Gradient reversal's own part of HD2S-DA, in its state dict.
CLASSIFIERS: Final = ("featureReduction", "domainClassifier")
# The name of each family's backbone, in its state dict.
BACKBONES: Final = {"hd2s": "featureExtractor", "unisal": "cnn", "esan": "base"}


def build(recipe: Recipe) -> nn.Module:
    """Return the recipe's network, in train mode, as training starts.

    Raises:
        UsageError: The network cannot take the recipe's size.
        SalstreamError: ``start_from`` holds neither the network nor its backbone.
    """
    torch.manual_seed(recipe.seed)
    if recipe.family == "hd2s":
        config = replace(
            hd2s.CONFIGS[recipe.model], size=recipe.clips.size, multi_level=recipe.multi_level
        )
        model: nn.Module = hd2s.Hd2s(config)
    else:
        model = networks.get(recipe.model).build()
    if recipe.start_from:
        start_from(model, recipe.family, Path(recipe.start_from))
    if recipe.norm_momentum:
        for norm in _norms(model):
            norm.momentum = recipe.norm_momentum
    return train_mode(model, recipe)


def train_mode(model: nn.Module, recipe: Recipe) -> nn.Module:
    """Put a network in train mode, but for the BatchNorm layers that the recipe freezes."""
    model.train()
    frozen = {
        "none": [],
        "backbone": _norms(model.get_submodule(BACKBONES[recipe.family])),
        "all": _norms(model),
    }
    for norm in frozen[recipe.frozen_norms]:
        norm.eval()
    return model


def start_from(model: nn.Module, family: str, path: Path) -> None:
    """Load a checkpoint of the network, or of its backbone's pretraining.

    The backbone's layers are told by their order and shapes, as names differ from file to
    file: S3D for HD2S, MobileNetV2 for UNISAL, VGG16 for ESAN-VSP; a classifier behind them
    is left out.

    Raises:
        SalstreamError: It is neither.
    """
    mine = model.state_dict()
    layout = {name: tuple(value.shape) for name, value in mine.items()}
    state, taken = networks.inside(load_state_dict(path), layout)
    if taken:
        _log.warning("%s: %s", path, taken)
    if mine.keys() == state.keys():
        fitting = {k: v for k, v in state.items() if v.shape == mine[k].shape}
        # HD2S-DA's domain classifiers are made for one size, and begin anew for another.
        if all(name.startswith("domainClassifier") for name in mine.keys() - fitting.keys()):
            model.load_state_dict(fitting, strict=False)
            return
    backbone = model.get_submodule(BACKBONES[family])
    if isinstance(backbone, Backbone):
        load_kinetics(backbone, state)
        return
    own = {k: v for k, v in backbone.state_dict().items() if not k.endswith("batches_tracked")}
    given = [(k, v) for k, v in state.items() if not k.endswith("batches_tracked")]
    for (name, value), (their_name, theirs) in zip(own.items(), given, strict=False):
        same_kind = name.rpartition(".")[2] == their_name.rpartition(".")[2]
        if value.shape != theirs.shape or not same_kind:
            raise SalstreamError(
                f"{path} is neither a checkpoint of the network nor of its backbone: "
                f"{their_name} {tuple(theirs.shape)} stands where {name} {tuple(value.shape)} "
                "should"
            )
    if len(given) < len(own):
        raise SalstreamError(f"{path} is cut short: {len(given)} entries of {len(own)}")
    values = (value for _, value in given)
    backbone.load_state_dict(dict(zip(own, values, strict=False)), strict=False)


def costs(model: nn.Module, recipe: Recipe, batch: Batch, reversal: float) -> dict[str, Tensor]:
    """Return the terms of a batch's loss, whose sum training minimises.

    Args:
        model: The network, perhaps wrapped for several processes.
        recipe: Says which network and which terms.
        batch: Clips; without maps if they are of gradient reversal's target.
        reversal: λ of gradient reversal; used where the recipe has a target.

    Returns:
        ``saliency``, and ``domain`` with gradient reversal (Eq. 3).
    """
    if recipe.family == "unisal":
        domain = batch.source
        logarithms, _ = model(unisal.normalise(batch.frames), domain, None, batch.static)
        return {"saliency": unisal_loss(logarithms, batch.maps, batch.fixations)}
    if recipe.family == "esan":
        saliency, _ = model(esan.normalise(batch.frames))
        return {"saliency": esan_loss(saliency, batch.maps, batch.fixations)}
    domains = networks.get(recipe.model).domains
    prediction: hd2s.Prediction = model(
        hd2s.normalise(batch.frames),
        batch.source if domains else None,
        reversal if recipe.target else None,
    )
    terms = {}
    is_target = batch.source == recipe.target
    if not is_target:
        terms["saliency"] = multi_level_kld(
            prediction.saliency, prediction.conspicuity, batch.maps[:, 0]
        )
    if prediction.domains is not None:
        terms["domain"] = domain_loss(prediction.domains, is_target)
    return terms


def mixed_costs(
    model: nn.Module, recipe: Recipe, source: Batch, target: Batch, reversal: float
) -> dict[str, Tensor]:
    """Return the terms of a batch of gradient reversal's source and one of its target, as one.

    The terms are those of :func:`costs`; only BatchNorm sees both domains at once.
    """
    clips = hd2s.normalise(torch.cat([source.frames, target.frames]))
    prediction: hd2s.Prediction = model(clips, None, reversal)
    count, conspicuity = len(source.frames), prediction.conspicuity
    assert prediction.domains is not None
    return {
        "saliency": multi_level_kld(
            prediction.saliency[:count],
            None if conspicuity is None else conspicuity[:count],
            source.maps[:, 0],
        ),
        "domain": domain_loss(prediction.domains[:count], False)
        + domain_loss(prediction.domains[count:], True),
    }


def parameter_groups(
    model: nn.Module, family: str
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the backbone's parameters, and all others."""
    backbone = list(model.get_submodule(BACKBONES[family]).parameters())
    ids = {id(parameter) for parameter in backbone}
    return backbone, [p for p in model.parameters() if id(p) not in ids]


def _norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
