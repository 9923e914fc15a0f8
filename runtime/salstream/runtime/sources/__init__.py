"""Where frames come from: everything that can be streamed, behind one interface.

``open_source`` takes a video file, images, a camera, a URL, standard input or any iterable
and gives a ``Source``: an iterator of frames that holds one decoded frame at a time.
"""

from salstream.runtime.sources.address import redact
from salstream.runtime.sources.base import Frame, PicturesAs, Reader, Source
from salstream.runtime.sources.open import open_source

__all__ = ["Frame", "PicturesAs", "Reader", "Source", "open_source", "redact"]
