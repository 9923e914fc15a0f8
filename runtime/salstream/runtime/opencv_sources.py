"""The old name of :mod:`salstream.runtime.sources.images`; older programs may still import it."""

from salstream.runtime.sources.images import IMAGE_SUFFIXES, images_among, read_image

__all__ = ["IMAGE_SUFFIXES", "images_among", "read_image"]
