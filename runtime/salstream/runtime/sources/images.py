"""One picture in a file, decoded: by OpenCV, or by Pillow and libheif what OpenCV gets wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.quiet import quiet_opencv

IMAGE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".hif"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".qoi"),
)
# Pictures that have to be developed, drawn or brought to a screen's range first.
UNREAD_SUFFIXES: Final = (
    *(".exr", ".hdr", ".pfm", ".jxl", ".jxr", ".psd", ".psb", ".xcf", ".svg", ".eps"),
    *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"),
)

HEIC_REMEDY: Final = (
    "HEIC needs pi-heif: install it with pip install 'salstream[heic]', or convert to JPEG"
)
AVIF_REMEDY: Final = "AVIF needs a newer Pillow: pip install -U pillow, or convert to PNG"

_HEIF_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"))
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_SEQUENCE_BRANDS: Final = frozenset((b"msf1", b"hevc", b"hevx"))
_MAGIC: Final = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}
HEAD_BYTES: Final = 64  # enough to know a format
_END_OF_JPEG: Final = b"\xff\xd9"
_JPEG_FOLLOWS: Final = b"\xff\xd9\xff\xd8"
# Entropy-coded data that means something: what takes it in was not complete.
_MORE_OF_JPEG: Final = bytes(range(1, 128))

# Large pictures are welcome; those that are beyond all bounds are refused all the same.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def format_of(head: bytes) -> str | None:
    """Return the format of a picture by its first ``HEAD_BYTES`` bytes; None: none that is known.

    ``HEIC`` stands for all of HEIF but AVIF. Videos in files of the same family (MP4) are none.
    """
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[at : at + 4] for at in (8, *range(16, size - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        # a film of HEVC pictures names these brands too, but not first
        if brands & _HEIF_BRANDS and not is_sequence(head):
            return "HEIC"
    return None


def is_sequence(head: bytes) -> bool:
    """Whether a file is first of all a film of HEIF pictures, such as a phone's burst."""
    return head[4:8] == b"ftyp" and head[8:12] in _SEQUENCE_BRANDS


def why_unread(path: Path) -> str | None:
    """Say why a kind of picture cannot be read here, and what to do; None: it can."""
    suffix = path.suffix.lower()
    if suffix in UNREAD_SUFFIXES:
        return f"{suffix[1:].upper()} is not supported: convert to PNG or JPEG"
    if suffix in (".heic", ".heif", ".hif") and find_spec("pi_heif") is None:
        # phones also give this name to JPEGs
        return HEIC_REMEDY if _format_in(path) in ("HEIC", None) else None
    if suffix == ".avif" and not features.check("avif"):
        return AVIF_REMEDY
    return None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name, or by its content where the name does not say.

    Raises:
        OSError: It cannot be read.
    """
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES):
        return True
    kind = _format_in(path)
    # Motion JPEG is JPEGs one after the other
    return kind is not None and not (kind == "JPEG" and _JPEG_FOLLOWS in path.read_bytes())


def _format_in(path: Path) -> str | None:
    with path.open("rb") as file:
        return format_of(file.read(HEAD_BYTES))


def images_among(paths: Iterable[Path]) -> list[Path]:
    """Return the image files, by their suffixes, in natural order: frame2 before frame10."""
    images = [
        path
        for path in paths
        # hidden ones are other programs' leavings, such as ._photo.jpg
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return sorted(images, key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key to sort by in which frame2 comes before frame10."""
    # text and numbers alternate, so like is always compared with like
    parts = re.split(r"([0-9]+)", str(path.with_suffix("")).casefold())
    numbered = [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)]
    return numbered, str(path)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image to (height, width, 3) BGR of 8 bits, whatever it holds, upright.

    Of several pictures in a file it is the first. A JPEG without its end marker is read if
    all of the picture is there.

    Raises:
        SalstreamError: It cannot be read or decoded, or not wholly.
    """
    return decode_image(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        SalstreamError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SalstreamError(f"{path} cannot be read: {why}") from error


def decode_image(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode the bytes of ``path``, as :func:`read_image` does.

    Raises:
        SalstreamError: It cannot be decoded.
    """
    if path.suffix.lower() in UNREAD_SUFFIXES:
        raise SalstreamError(f"{path} cannot be decoded: {why_unread(path)}")
    kind = format_of(data[:HEAD_BYTES])
    if kind == "HEIC" or is_sequence(data):
        image = _by_libheif(data, path)
    elif kind in ("AVIF", "GIF") or (kind is None and path.suffix.lower() in (".tga", ".qoi")):
        image = _by_pillow(data, path)
        if kind == "AVIF" and image is not None:
            # PyAV loads late: not everybody has such pictures
            from salstream.runtime.sources.hdr_pictures import declared_colours, tone_mapped

            image = tone_mapped(image, *declared_colours(data))
    elif kind == "PNG" and (colours := _colours_of_png(data)):
        image = _hdr_png(data, *colours)
    else:
        image = _by_opencv(data)
        if kind == "JPEG" and (image is None or _is_grey_in_a_corner(image)):
            image = _whole_jpeg(data)
    if image is None:
        why = "it is damaged, or not an image"
        if _VIDEO.match(data):
            why = "it is a video: give it the suffix of one, such as .mp4"
        raise SalstreamError(f"{path} cannot be decoded: {why}")
    return image


def _by_opencv(data: bytes) -> NDArray[np.uint8] | None:
    image = _opencv_decoded(data, cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)


def _opencv_decoded(data: bytes, flags: int) -> NDArray[Any] | None:
    try:
        with quiet_opencv():
            return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _colours_of_png(data: bytes) -> tuple[int, int] | None:
    """Return transfer and primaries as the chunk cICP says, by their numbers in H.273."""
    at = data.find(b"cICP", 0, data.find(b"IDAT"))
    return (data[at + 5], data[at + 4]) if at >= 0 else None


def _hdr_png(data: bytes, transfer: int, primaries: int) -> NDArray[np.uint8] | None:
    from salstream.runtime.sources.hdr_pictures import tone_mapped

    image = _opencv_decoded(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return None if image is None else tone_mapped(image, transfer, primaries)


def _by_pillow(data: bytes, path: Path) -> NDArray[np.uint8] | None:
    try:
        with Image.open(BytesIO(data)) as picture:
            return upright_bgr(picture)
    except UnidentifiedImageError:
        if format_of(data[:HEAD_BYTES]) == "AVIF" and not features.check("avif"):
            raise SalstreamError(f"{path} cannot be decoded: {AVIF_REMEDY}") from None
    except Image.DecompressionBombError:
        raise SalstreamError(f"{path} has too many pixels: make it smaller") from None
    except PILLOW_ERRORS:
        pass
    return None


def _by_libheif(data: bytes, path: Path) -> NDArray[np.uint8] | None:
    try:
        from pi_heif import open_heif
    except ImportError as error:
        raise SalstreamError(f"{path} cannot be decoded: {HEIC_REMEDY}") from error
    from salstream.runtime.sources.hdr_pictures import TRANSFERS, declared_colours, tone_mapped

    try:
        # libheif puts tiles together, and turns and mirrors as the file says
        picture = open_heif(data, convert_hdr_to_8bit=True)
        profile = picture.info.get("nclx_profile")
        if profile:
            colours = profile["transfer_characteristics"], profile["color_primaries"]
        else:  # libheif does not look into the codec's own header
            colours = declared_colours(data)
        if colours[0] not in TRANSFERS:
            return upright_bgr(picture.to_pillow())
        # copied, as the memory goes with the picture
        deep = np.array(open_heif(data, convert_hdr_to_8bit=False, bgr_mode=True))
    except PILLOW_ERRORS:
        return None
    return tone_mapped(deep[..., :3], *colours)


# How MP4, MOV, Matroska and AVI files begin; HEIC and AVIF have brands of their own.
_VIDEO: Final = re.compile(
    rb"(?s)....(?:ftyp(?!he|avi|mi|ms)|moov|mdat)|\x1aE\xdf\xa3|RIFF....AVI "
)
# Its plugins raise almost any type for damaged data.
PILLOW_ERRORS: Final = Exception


def upright_bgr(picture: Image.Image) -> NDArray[np.uint8]:
    """Return Pillow's picture as (height, width, 3) BGR, turned as its EXIF data say."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):  # Pillow would cut off what is above 255
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[:, :, ::-1])


def header_of(path: Path) -> tuple[tuple[int, int] | None, bool]:
    """Return a picture's width and height as it is shown, and whether a camera took it.

    Both are as the header says; a size of None is not known.
    """
    if path.suffix.lower() in (".heic", ".heif", ".hif"):
        return None, True
    try:
        with Image.open(path) as picture:
            if picture.format == "PNG":  # Pillow would read all of it for what hardly any has
                return picture.size, False
            exif = picture.getexif()
            turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            size = picture.size[::-1] if turned else picture.size
            return size, ExifTags.Base.Make in exif
    except PILLOW_ERRORS:
        return None, False


def _whole_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """Decode a JPEG that may lack its end marker, if nothing of the picture is missing.

    A decoder that still waits for data takes what comes next for the rest of the picture.
    """
    data = data.removesuffix(_END_OF_JPEG)
    try:  # by Pillow, because OpenCV lets libjpeg write to standard error
        with (
            Image.open(BytesIO(data + _END_OF_JPEG)) as ended,
            Image.open(BytesIO(data + _MORE_OF_JPEG + _END_OF_JPEG)) as longer,
        ):
            whole = np.array_equal(np.asarray(ended), np.asarray(longer))
    except PILLOW_ERRORS:
        return None
    return _by_opencv(data + _END_OF_JPEG) if whole else None


def _is_grey_in_a_corner(image: NDArray[np.uint8]) -> bool:
    """Whether a corner has the colour that decoders give to what is missing of a JPEG."""
    corners = image[:: max(1, image.shape[0] - 1), :: max(1, image.shape[1] - 1)]
    return bool((corners == 128).all(axis=2).any())
