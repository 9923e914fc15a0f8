"""Sets of pictures: which are read, as what, under which names, and what is said of the rest."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from clips import number_image, numbered_clip, read_number
from fakes import FakeBackend, spec
from heif import imir, irot, write_grid
from runtime.test_cli import refused, salstream, summary_of
from runtime.test_sources import drop_rights, is_one_sentence, nobody, numbers, read
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.live.listing import read_cameras
from salstream.runtime.model import SaliencyModel
from salstream.runtime.outputs import Outputs, keep_apart
from salstream.runtime.predictor import Predictor
from salstream.runtime.sinks import Figures, MapFolder
from salstream.runtime.sources import open_source
from salstream.runtime.sources.images import read_image
from salstream.runtime.sources.numbering import are_numbered
from salstream.runtime.sources.patterns import matches
from salstream.runtime.sources.pictures import Pictures
from salstream.runtime.sources.video import open_stream
from salstream.runtime.spec import GraphSpec
