"""S3D (ECCV 2018): the video backbone of HD2S, and its Kinetics-400 classifier. Read `model`."""

from salstream.training.s3d.model import (
    BLOCK_CHANNELS,
    S3D,
    Backbone,
    batch_norm3d,
    load_kinetics,
    normalise,
)

__all__ = ["BLOCK_CHANNELS", "S3D", "Backbone", "batch_norm3d", "load_kinetics", "normalise"]
