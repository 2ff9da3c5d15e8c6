"""DeCodec as ONNX, for programs in any language: `decodec export MODEL OUT --onnx`. docs/onnx.md shows its use.

    files.write(torch_model.DeCodec.from_pretrained(bundle), folder, fingerprint, licence)
    runtime = Runtime(folder)  # the same methods as the PyTorch twin has

It needs onnx and torch to write, and onnxruntime to run.
"""

from .files import rounded, write
from .runtime import Runtime

__all__ = ["Runtime", "rounded", "write"]
