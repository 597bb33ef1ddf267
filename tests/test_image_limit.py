"""Small files whose images would fill the memory: ccfast has a limit, with one message."""

from __future__ import annotations

import pickle
import struct
import warnings
import zlib

import pytest
from image_trees import write_tree
from processes import Command, in_a_process

from ccfast._errors import InputError
from ccfast._limits import MAX_IMAGE_PIXELS
from ccfast.cli import main
from ccfast.data import load_data
from ccfast.data.image_files import ImageFiles, decode, pixels_at_most

TREE = {f"{part}/{name}": ["1.png", "2.png"] for part in ("train", "query", "gallery") for name in "abcd"}
SMALL = ["--weights", "none", "--arch", "smallconv", "--k1", "4", "--k2", "2", "--eps", "0.9", "--min-samples", "1",
         "--batch-size", "4", "--num-instances", "2", "--height", "16", "--width", "8", "--workers", "0",
         "--epochs", "1", "--iters", "1", "--device", "cpu", "--quiet"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """No page at the end of a run: it takes longer than these runs."""
    monkeypatch.setattr("ccfast.commands._page.write_page", lambda *args: None)


def write_png(path, width, height):
    """A black image of one bit per pixel: a file a thousand times smaller than the image."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("size", [(13_000, 13_000), (30_000, 20_000), (8001, 8000), (65_000_000, 1)])
def test_an_image_above_the_limit_is_named_before_it_is_decoded(tmp_path, size, monkeypatch):
    from PIL import ImageFile

    path = write_png(tmp_path / "large.png", *size)
    decode(write_png(tmp_path / "small.png", 8, 8))  # loads Pillow's plugins
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"large.png: cannot be read as an image: .*--max-image-pixels"):
        decode(path)


def test_the_limit_itself_is_taken(tmp_path):
    path = write_png(tmp_path / "image.png", 40, 25)
    assert decode(path, 1000).size == (40, 25)
    with pytest.raises(InputError, match=r"it has 40 x 25 pixels, and --max-image-pixels is 999"):
        decode(path, 999)
    assert decode(path).size == (40, 25) and MAX_IMAGE_PIXELS == 64_000_000


@pytest.mark.slow
def test_one_message_and_no_warning_of_pillows_come_of_a_large_image(tmp_path):
    data = write_tree(tmp_path / "data", TREE)
    write_png(data / "train" / "a" / "1.png", 13_000, 13_000)
    assert (data / "train" / "a" / "1.png").stat().st_size < 600_000
    command = ["train", "--dataset", "folder", "--data-dir", data, *SMALL]
    done = Command([*command, "--run", tmp_path / "run"]).done()
    assert done.returncode == 2 and done.stderr.startswith("ccfast train: 1 image cannot be read:\n")
    assert f"{data / 'train' / 'a' / '1.png'}: cannot be read as an image: it has 13,000 x 13,000 pixels" in done.stderr
    assert "Decompression" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_large_images_can_be_left_out_or_let_in(tmp_path, capsys):
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    data = write_tree(tmp_path / "data", TREE)
    write_png(data / "train" / "a" / "1.png", 100, 100)
    arguments = ["train", "--dataset", "folder", "--data-dir", str(data), *SMALL]
    assert main([*arguments, "--run", str(tmp_path / "none"), "--max-image-pixels", "9999"]) == 2
    assert "--max-image-pixels is 9,999" in capsys.readouterr().err
    limited = ["--max-image-pixels", "9999", "--bad-images", "skip"]
    assert main([*arguments, "--run", str(tmp_path / "fewer"), *limited]) == 0
    assert "left out" in capsys.readouterr().err
    assert main([*arguments, "--run", str(tmp_path / "all"), "--max-image-pixels", "10000"]) == 0
    assert "max_image_pixels: 10000" in (tmp_path / "all" / "config.yaml").read_text()
    evaluate = ["evaluate", str(tmp_path / "all"), "--device", "cpu", "--workers", "0"]
    assert main(evaluate) == 0
    assert main([*evaluate, "--max-image-pixels", "100"]) == 2


def test_images_keep_their_limit_where_workers_load_them(tmp_path):
    write_png(tmp_path / "image.png", 10, 10)
    with pixels_at_most(99):
        images = ImageFiles([tmp_path / "image.png"])
    images = pickle.loads(pickle.dumps(images))
    with pytest.raises(InputError, match="--max-image-pixels is 99"):
        images[0]
    assert ImageFiles([tmp_path / "image.png"])[0].size == (10, 10)


def decode_large(rank, path):
    warnings.simplefilter("error")
    assert decode(path, 300_000_000).size == (200_000, 1000)


@pytest.mark.slow
def test_a_limit_above_pillows_own_is_kept_to(tmp_path):
    write_png(tmp_path / "image.png", 200_000, 1000)  # Pillow refuses 179 million
    in_a_process(decode_large, tmp_path / "image.png")


def test_an_invalid_limit_is_an_error(tmp_path, capsys):
    for limit in ("0", "-1"):
        assert main(["train", "--max-image-pixels", limit]) == 2
        assert f"--max-image-pixels: expected at least 1, got {limit}" in capsys.readouterr().err


def test_a_limit_of_one_reading_is_not_that_of_the_next(tmp_path):
    data = write_tree(tmp_path / "data", TREE)
    with pytest.raises(InputError, match="--max-image-pixels is 5"):
        load_data("folder", data, max_image_pixels=5)
    assert len(load_data("folder", data).train) == 8
