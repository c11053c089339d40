"""Keeping autocast out of weights that are in low precision already."""

import torch


def in_own_precision(device: torch.device, weights: torch.dtype) -> torch.autocast:
    """A block in which fp32 weights obey the autocast around it, and others run as they are.

    Autocast over bf16 weights would only cast norms and softmaxes up to fp32 and back, in every layer.
    """
    is_obeyed = torch.is_autocast_enabled(device.type) and weights == torch.float32
    return torch.autocast(device.type, torch.get_autocast_dtype(device.type), enabled=is_obeyed)
