"""S3D (ECCV 2018): the video backbone of HD2S, and its Kinetics-400 classifier. Read `model`."""

from salstream.training.s3d.model import S3D, Backbone, from_torchvision, load_kinetics, normalise

__all__ = ["S3D", "Backbone", "from_torchvision", "load_kinetics", "normalise"]
