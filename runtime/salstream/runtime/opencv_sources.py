"""The old name of :mod:`salstream.runtime.sources.images`."""

from salstream.runtime.sources.images import IMAGE_SUFFIXES, images_among, read_image

__all__ = ["IMAGE_SUFFIXES", "images_among", "read_image"]
