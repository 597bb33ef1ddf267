"""Identity, camera and clothes from file names, in the forms that re-ID data sets use."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SEPARATORS = re.compile(r"[_\-.\s]+")

#: The identity, with or without a word before it: 0002_..., -1_..., person_0002_..., 0001C1T0001F001 (MARS).
_BEGINNING = re.compile(r"(?P<word>[A-Za-z]+)?(?(word)[_\- ]?)(?P<id>(?<![A-Za-z\d])-?\d+|\d+)(?=[_\-\s]|[Cc]\d)")

#: Words before an identity. After other words a camera must follow, or IMG_1234.jpg would have an identity.
_IDENTITY_WORDS = {"id", "pid", "p", "person", "identity", "vehicle", "vid", "car"}

#: c1, c1s1, C6, c001, cam1, Cam01, camera3, s1c1, c1t0001f001.
_NUMBER = re.compile(r"(?:s\d+)?(?:c|cam|camera)(?P<camera>\d+)(?:[abd-z]\d+)*", re.IGNORECASE)

#: cA, camA, camb, cameraB, cAs1.
_LETTER = re.compile(r"(?:[Cc](?P<upper>[A-Z])|(?i:cam|camera)(?P<any>[A-Za-z]))(?:[sS]\d+)?")

#: cam and camera with the number, or the letter, in the next part: cam_1.
_WORD = re.compile(r"cam(?:era)?", re.IGNORECASE)
_NEXT = re.compile(r"\d+|[A-Za-z]")

#: Parts that look like a camera but have none of these forms: c1x, cam, webcam2, cam1b; and parts that may be one.
_LIKE = re.compile(r"c\d.*|.*cam(?:era)?\d.*|cam(?:era)?", re.IGNORECASE)
_PERHAPS = re.compile(r"(?:cctv|view|kamera|channel|device|sensor|station|lens)\d+|c[a-z]|.*cam.*", re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """The content of a file name; ``cam`` and ``clothes`` are None if it does not have them.

    ``letter``: the camera was a letter; A is 1. ``unused``: a part that looks like a camera and was not used;
    ``perhaps``: a part that may be a camera.
    """

    id: int
    cam: int | None = None
    clothes: int | None = None
    letter: bool = False
    unused: str | None = None
    perhaps: str | None = None


def parse_name(stem: str) -> Name | None:
    """The content of the name ``stem`` (without extension); None if it does not begin with an identity.

    The identity comes first; the first part after it that is a camera is the camera; clothes are a number between
    the two. A second, other camera is ``unused``.
    """
    beginning = _BEGINNING.match(stem)
    if beginning is None:
        return None
    parts = [part for part in _SEPARATORS.split(stem[beginning.end() :]) if part]
    cameras, unused, perhaps = _cameras(parts)
    word = beginning["word"]
    if word is not None and word.lower() not in _IDENTITY_WORDS and not cameras:
        return None
    clothes = int(parts[0]) if parts and parts[0].isdecimal() and cameras and cameras[0][0] > 0 else None
    if not cameras:
        return Name(int(beginning["id"]), unused=unused, perhaps=perhaps)
    _, cam, letter = cameras[0]
    others = [parts[at] for at, number, is_letter in cameras[1:] if (number, is_letter) != (cam, letter)]
    return Name(int(beginning["id"]), cam, clothes, letter, others[0] if others else unused)


def _cameras(parts: list[str]) -> tuple[list[tuple[int, int, bool]], str | None, str | None]:
    """Position, number and kind (letter or not) of each camera in ``parts``; a part like a camera; one that may be."""
    cameras: list[tuple[int, int, bool]] = []
    unused = perhaps = None
    following = [*parts[1:], ""]
    for at, (part, after) in enumerate(zip(parts, following, strict=True)):
        if found := _NUMBER.fullmatch(part):
            cameras.append((at, int(found["camera"]), False))
        elif found := _LETTER.fullmatch(part):
            cameras.append((at, _number(found["upper"] or found["any"]), True))
        elif _WORD.fullmatch(part) and _NEXT.fullmatch(after):
            cameras.append((at, int(after) if after.isdecimal() else _number(after), not after.isdecimal()))
        elif _LIKE.fullmatch(part):
            unused = unused or part
        elif _PERHAPS.fullmatch(part) or (part.lower() == "c" and after.isdecimal()):
            perhaps = perhaps or part
    return cameras, unused, perhaps


def _number(letter: str) -> int:
    """The letter's position in the alphabet, from 1."""
    return ord(letter.upper()) - ord("A") + 1
