"""Pictures and videos that cameras, phones and recorders made, for the tests.

They are test data of packages that others publish, and are fetched as these packages' sources.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

# Package and version, and the files in it that are used.
SHA256: Final = {
    "filetype==1.2.0": {
        "tests/fixtures/sample.avif": (
            "0fa73f339a9d4a4a8fa70fba69c6e1db6b55137ce60774767990a6da7e017780"
        ),
        "tests/fixtures/sample.heic": (
            "6ad2e1f457e83a6a67bbc2a97a7352057265cf33965e41c38a9e76baca4e007f"
        ),
        "tests/fixtures/sample.jpg": (
            "00a98c33df26115e9bf2a614997861a5cfa8a91377e5f074ee3cb5b4d41506f1"
        ),
        "tests/fixtures/sample.mov": (
            "4a1db143911f35d98d180230cb1176670cd8acd4902166410fe8fb21b7cb0c85"
        ),
    },
    "hachoir==3.4.0": {
        "tests/files/10min.mkv": (
            "8b0e8e74f22ba95f326bb6a9e24d9787db8d667770b1687e4ab3a4b072bd4331"
        ),
        "tests/files/breakdance.flv": (
            "6aab5766e19b16445a03994ba2d9e85d4de59d9c5c13e58a9ca51149e219a150"
        ),
        "tests/files/canon.raw.cr2": (
            "a5e57812f5abdc920da583f759f556943e9955a7eb8e670e970b7cc79fb2d11a"
        ),
        "tests/files/flashmob.mkv": (
            "5fb622da345d972bf11bdee7140d91f8c3d7d7679d28e08613508cabd7158853"
        ),
        "tests/files/gps.jpg": ("1668330d4a2efe3baaf2509e4f73af14b9ec0ca45dcc54b3ca9af72aa1d9a388"),
        "tests/files/green_fire.jpg": (
            "c97ed651229e59b2a4b2e58c7a5c531f47fd1fb975da865489ee5f59146a61cf"
        ),
        "tests/files/jpeg.exif.photoshop.jpg": (
            "23d143231525a7f12d44de00f557410a270b3fcfddc950355ec29a07e75bd600"
        ),
        "tests/files/matrix_ping_pong.wmv": (
            "97d1da902add0303ebcd62dd66d5fa4a076fcc6272bc9afb290b83425b3b8309"
        ),
        "tests/files/pentax_320x240.mov": (
            "c21f2018b68e868163c1ba70d953096498fd1fd0752e0927a4394c11e362a9d2"
        ),
        "tests/files/png_331x90x8_truncated.png": (
            "c3510834c60cb82bf97bb9b8d689493a213ce5e611ed557e8ffdea2f8ed4fa8b"
        ),
        "tests/files/quicktime.mp4": (
            "53a5d36e734ac8e2825a02d877bc2c8ac323c98a585a1324cee2cd8149474027"
        ),
        "tests/files/sample.ts": (
            "d3ec46f3b32c87ca0e5328746956d8adeb2bdab57a256e21fa04c758fc924fe6"
        ),
        "tests/files/smallville.s03e02.avi": (
            "ffed4d5f3f6ba4968fe3b80bd9ae7b16b5551fdba21fdab766e251ed8819b7dd"
        ),
        "tests/files/usa_railroad.jpg": (
            "73880146a681e49b90cf0b9189430ef45533c474b10ff6dfa5d7f5310ca9bd40"
        ),
    },
    "pi-heif==1.4.0": {
        "tests/images/heif_corrupted/corrupted.hif": (
            "1d4476c491a56ab3df75194a632f44495edc0a50d104c80a1c9ab8d2ae6a30a3"
        ),
        "tests/images/heif_other/arrow.heic": (
            "73f604d7353df4848505a1f45a5517f736857fe047372f95c2f3d671df92c22c"
        ),
        "tests/images/heif_other/empty_icc.heic": (
            "8f14e825ed613843930c6ca60835c3b971eb31499fb231050a47b4a8daf3247b"
        ),
        "tests/images/heif_other/nokia/alpha.heic": (
            "4dbbf50e1a0178261c46781bd764626fc75bf11549e744204c68ef212755c4c1"
        ),
        "tests/images/heif_other/nokia/bird_burst.heic": (
            "b9cb7666f3cbd7d9240816befd1d7406f66cfd69c85440b091da37fe70743c14"
        ),
        "tests/images/heif_other/pug.heic": (
            "1ddce96766efbfa0f6bdf634bdab26bdeff831393df8d67f4cdc7b7a7afebc67"
        ),
        "tests/images/heif_other/spatial_photo.heic": (
            "ef941d328072a2df034adb3c3b46f41117606bfc8fcc100dff975d31f55ec028"
        ),
        "tests/images/heif_special/aux_YCbCr.heic": (
            "8deae321c3b6424f97ab5d57d022e0a79ac35278149c0de7796261b8981f50b0"
        ),
        "tests/images/heif_special/guitar_cw90.hif": (
            "f0d5e88be07b9d70a3715218ca612ccf45b126e5b4b42172dce14a62d2099932"
        ),
        "tests/images/heif_special/xiaomi.heic": (
            "cb5c7d9131931df4abd9bfe1c3de47617b68d1fae54a1c367fc5981ffea6aeed"
        ),
    },
    "piexif==1.1.3": {
        "tests/images/01.tif": ("58b11b46010c14e4340480e41215aaa5314f55191a65790f76a139ba7dacdb77"),
        "tests/images/02.jpg": ("2decffacd67a53482a43bfa4df36f9119f92830d8cb6e6f42aa090c1ccaf6c31"),
        "tests/images/large.jpg": (
            "05b008efbbc727f46b2adc98c82de2966af605926488d699bd61249d58d36131"
        ),
        "tests/images/L01.jpg": (
            "2251d491de7242891aa776b149c47658ccd355c293745a4a56fb84cfcd754efd"
        ),
        "tests/images/r_canon.jpg": (
            "a34396c60d3d4031dba43d362fbdc4bc00fdcba9d790404ec0b8142c23f46cec"
        ),
        "tests/images/r_casio.jpg": (
            "866ba80fb7bf6f0449c50e320e2f394cbbe5f5fea30ef2086bed89498fd1f195"
        ),
        "tests/images/r_olympus.jpg": (
            "3d2a6eeebd694dbe0fb3854abc191eea2f32226da4914daa17572fee93df1002"
        ),
        "tests/images/r_pana.jpg": (
            "5e6b13b6c27ef2c5c2e635711b7a435e91b4a6a9eb8c67047063f00d28c8bf87"
        ),
        "tests/images/r_pen.jpg": (
            "1027d4ab14ac58b0e049c52f7a04c856f26553b591ecc4fe1ac59a9f8b2e7064"
        ),
        "tests/images/r_ricoh.jpg": (
            "1f90ebe39c2b6edce460d8347623bb19e747f37637e0198ed49edd4b56e7ef40"
        ),
        "tests/images/r_sigma.jpg": (
            "d0fa563625781a90e1fc9a567c669533dbc1a7e2b68aea7b7ee17426e4e4a87c"
        ),
        "tests/images/r_sony.jpg": (
            "b18f195ae3ac02b34ec58051f579d934d12361eb558ed22a96435cf6fcd18a12"
        ),
    },
}
_WHERE: Final = {
    Path(member).name: (package, member) for package, files in SHA256.items() for member in files
}


def real_file(name: str) -> Path:
    """Return the path of a real file; skip the test where it cannot be had."""
    package, member = _WHERE[name]
    path = _cache_folder() / name
    if not _is_whole(path, SHA256[package][member]) and (why := _download(package)):
        pytest.skip(f"the real files of {package} could not be had: {why}")
    return path


def _cache_folder() -> Path:
    chosen = os.environ.get("SALSTREAM_TEST_CACHE")
    cache_folder = Path(chosen) if chosen else Path(__file__).resolve().parents[1] / ".cache"
    return cache_folder / "real-files"


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


@cache  # without a network one attempt is enough
def _download(package: str) -> str:
    """Fetch the files of a package; return why that failed, or nothing."""
    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    # A folder of one's own and renames: another process may be doing the same.
    with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary=:all:", "--disable-pip-version-check", "--dest", scratch]
        # pip runs the package's setup script to learn its name; nothing is built or installed
        if find_spec("setuptools") is not None:
            command += ["--no-build-isolation"]
        try:
            subprocess.run(
                [*command, package], check=True, capture_output=True, text=True, timeout=120
            )
            (archive,) = (file for file in Path(scratch).iterdir() if file.is_file())
            found = _extract(archive, SHA256[package])
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            said = getattr(error, "stderr", None) or str(error)
            return str(said).strip().splitlines()[-1]
        for member, data in found.items():
            if hashlib.sha256(data).hexdigest() != SHA256[package][member]:
                return f"{member} is not the file that the tests know"
            part = Path(scratch) / Path(member).name
            part.write_bytes(data)
            part.replace(folder / part.name)
    return ""


def _extract(archive: Path, members: Mapping[str, str]) -> dict[str, bytes]:
    """Read files from a source package, whose names begin with the package's folder."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            top = zipped.namelist()[0].split("/")[0]
            return {member: zipped.read(f"{top}/{member}") for member in members}
    with tarfile.open(archive) as tarred:
        top = tarred.getnames()[0].split("/")[0]
        files = {member: tarred.extractfile(f"{top}/{member}") for member in members}
        return {member: file.read() for member, file in files.items() if file is not None}
