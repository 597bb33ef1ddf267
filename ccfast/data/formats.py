"""Which files are images, by extension, and which of them the installed Pillow can open."""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import cache
from pathlib import Path

from ccfast._optional import import_optional

#: Formats of Pillow that are not photographs: vector graphics, films, icons, tables of data.
_NO_PHOTOGRAPHS = {
    ".bufr", ".cur", ".emf", ".eps", ".gbr", ".grib", ".h5", ".hdf", ".icns", ".ico", ".iim", ".mpeg", ".mpg", ".ps",
    ".wmf",
}  # fmt: skip

_HEIF = (".heic", ".heif", ".heics", ".heifs", ".hif")
_JPEG_2000 = (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c")
_RAW = (".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".raf", ".raw", ".rw2", ".srw")

#: Packages that add formats to Pillow.
_PLUGINS = {"pillow_heif": "pillow-heif", "pillow_jxl": "pillow-jxl-plugin"}

#: Advice for image formats that Pillow may not open.
_ADVICE = {
    **dict.fromkeys(_HEIF, "pip install pillow-heif to read them"),
    ".jxl": "pip install pillow-jxl-plugin to read them",
    **dict.fromkeys((".avif", ".avifs", ".webp", *_JPEG_2000), "pip install --upgrade pillow to read them"),
    **dict.fromkeys((*_RAW, ".exr", ".hdr", ".jxr", ".svg", ".wdp", ".xcf"), "convert them to PNG or JPEG"),
}

#: Extensions that Pillow registers even if it was built without the library that decodes them.
_FEATURES = {"avif": (".avif", ".avifs"), "webp": (".webp",), "jpg_2000": _JPEG_2000}

#: The brands of a HEIF file after "ftyp".
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

#: The description of an image in messages.
EXAMPLES = "images such as .jpg, .png or .webp"


@cache
def readable() -> frozenset[str]:
    """The extensions, lower case, of readable images; loads the installed plugins of Pillow."""
    image = import_optional("PIL.Image", "an image folder")
    features = import_optional("PIL.features", "an image folder")
    image.init()
    for module in _PLUGINS:
        _load_plugin(module)
    opened = {extension for extension, name in image.registered_extensions().items() if name in image.OPEN}
    for feature, extensions in _FEATURES.items():
        if not features.check(feature):
            opened -= set(extensions)
    return frozenset(opened - _NO_PHOTOGRAPHS)


def advice(extension: str) -> str | None:
    """Advice for images with an unreadable (lower case) ``extension``; None: not a known image format."""
    return _ADVICE.get(extension)


def hint(path: str | Path) -> str:
    """ "; it holds HEIC: ..." if the content of a file that Pillow cannot open says so, for any file name."""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and ".heic" not in readable():
            return f"; it holds HEIC: {_ADVICE['.heic']}"
    return ""


def _load_plugin(module: str) -> None:
    try:
        plugin = importlib.import_module(module)
    except ImportError:
        return
    if module == "pillow_heif":  # the other one registers itself
        plugin.register_heif_opener()
