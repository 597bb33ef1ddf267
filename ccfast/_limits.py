"""Default limits."""

from __future__ import annotations

#: Pixels per image: 8,000 x 8,000, which is 192 MB in RGB. A PNG of half a megabyte can contain 169 million.
MAX_IMAGE_PIXELS = 64_000_000
