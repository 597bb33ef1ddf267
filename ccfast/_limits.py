"""How much is too much, where nobody says otherwise."""

from __future__ import annotations

#: Pixels of an image: 8,000 x 8,000, which is 192 MB in RGB. A PNG of half a megabyte can hold 169 million.
MAX_IMAGE_PIXELS = 64_000_000
