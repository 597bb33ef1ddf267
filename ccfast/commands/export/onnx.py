"""``ccfast export``: a trained encoder as a file that runs without ccfast, from torch.export or as ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ccfast._errors import RunError
from ccfast._files import given_output, write_whole
from ccfast._optional import how_to_install, import_optional
from ccfast.models import Encoder
from ccfast.training.trained import load_trained

log = logging.getLogger(__name__)

#: Largest allowed difference from the encoder's own features, whose norm is 1.
TOLERANCE = 1e-4

Run = Callable[[Tensor], Tensor]


def export_encoder(path: str, output: str, batch: int | None = None) -> float | None:
    """Write the encoder of a run or checkpoint to ``output``: .pt2 (``torch.export.load``) or .onnx.

    Like the encoder, the file takes uint8 images [B, channels, height, width] and returns features [B, D] of unit norm.

    Args:
        batch: the fixed batch size B of the file; None: any batch size.

    Returns:
        The largest difference from the encoder's features on random images; None if onnxruntime is not installed, so
        that it could not be measured.

    Raises:
        InputError: an unknown ending, a missing package, a folder that cannot be written to.
        RunError: the file's features differ from the encoder's; the file is not kept.
    """
    target = given_output("--output", output, tuple(_WRITERS))
    if target.suffix == ".onnx":
        for package in ("onnx", "onnxscript"):
            import_optional(package, "--output FILE.onnx")
    trained = load_trained(path, device="cpu")
    encoder = trained.encoder
    with torch.no_grad(), _quiet():
        content, run = _WRITERS[target.suffix](_exported(encoder, batch))
        difference = None if run is None else _difference(encoder, run, batch)
    if difference is not None and not difference <= TOLERANCE:
        raise RunError(f"{output}: its features differ from the encoder's by up to {difference:.2g}; not kept")
    write_whole(target, content)
    channels = encoder.input_mean.shape[0]
    log.info("%s (epoch %d) -> %s", trained.file, trained.epoch, target)
    log.info(
        "images: uint8 [%s, %d, %d, %d]; features: float32 [%s, %d]",
        batch or "batch", channels, encoder.height, encoder.width, batch or "batch", encoder.num_features,
    )  # fmt: skip
    if difference is None:
        log.warning("not checked against the encoder: onnxruntime is not installed (%s)", how_to_install("onnxruntime"))
    else:
        log.info("largest difference from the encoder's features on random images: %.2g", difference)
    return difference


def _exported(encoder: Encoder, batch: int | None) -> torch.export.ExportedProgram:
    shapes = None if batch else {"images": {0: torch.export.Dim("batch", min=1)}}
    return torch.export.export(encoder, (_random_images(encoder, batch or 2),), dynamic_shapes=shapes)


def _pt2(program: torch.export.ExportedProgram) -> tuple[bytes, Run]:
    content = io.BytesIO()
    torch.export.save(program, content)
    content.seek(0)
    return content.getvalue(), torch.export.load(content).module()


def _onnx(program: torch.export.ExportedProgram) -> tuple[bytes, Run | None]:
    """The second value is None if onnxruntime is not installed."""
    exported = torch.onnx.export(
        program, (), input_names=["images"], output_names=["features"], external_data=False, verbose=False
    )
    content = exported.model_proto.SerializeToString()
    try:
        import onnxruntime
    except ImportError:
        return content, None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])


#: The writer and the runner of each kind of file.
_WRITERS: dict[str, Callable[[torch.export.ExportedProgram], tuple[bytes, Run | None]]] = {
    ".pt2": _pt2,
    ".onnx": _onnx,
}


def _difference(encoder: Encoder, run: Run, batch: int | None) -> float:
    """The largest difference over batches of one and of five images, if the file takes any batch size."""
    batches = [_random_images(encoder, count) for count in ([batch] if batch else [1, 5])]
    return max(float((run(images) - encoder(images)).abs().max()) for images in batches)


def _random_images(encoder: Encoder, count: int) -> Tensor:
    shape = (count, encoder.input_mean.shape[0], encoder.height, encoder.width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' warnings about their own deprecations."""
    onnx_log = logging.getLogger("torch.onnx")
    level = onnx_log.level
    onnx_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnx_log.setLevel(level)
