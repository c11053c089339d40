"""Let a torchvision built for CUDA import beside a CPU-only torch.

The published torchvision wheel needs two operator schemas that its C++ library cannot register without CUDA, so that
`import torchvision`, and with it most of transformers, timm and open_clip, fails on a CPU machine.  vlmtrain uses no
torchvision operator; it only needs the import to succeed.  Does nothing where the real operators load.
"""

import sys
from importlib.machinery import ModuleSpec

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _DefineMissingSchemas:
    """An import hook that looks on and never imports anything itself."""

    library: object = None

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == "torchvision._meta_registrations" and cls.library is None:
            extension = sys.modules.get("torchvision.extension")
            if extension is not None and not extension._has_ops():
                import torch

                cls.library = torch.library.Library("torchvision", "FRAGMENT")
                for schema in _SCHEMAS:
                    cls.library.define(schema)
        return None


def install() -> None:
    """Put the hook first on the import path; a second call does nothing."""
    if _DefineMissingSchemas not in sys.meta_path:
        sys.meta_path.insert(0, _DefineMissingSchemas)
