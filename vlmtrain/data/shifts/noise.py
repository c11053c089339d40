"""A grainy sensor."""

import numpy as np

from vlmtrain.data.shifts.base import Field, PixelShift


class Noise(PixelShift):
    """Gaussian noise on every pixel and channel; `deviation` is a share of full brightness.

    0.18 is the middle of the five degrees of ImageNet-C (Hendrycks and Dietterich 2019, arXiv:1903.12261).
    """

    def __init__(self, deviation: float = 0.18) -> None:
        if deviation <= 0:
            raise ValueError(f"deviation={deviation} is no noise: give a share of full brightness above 0")
        self.deviation = deviation

    def change(self, pixels: Field, generator: np.random.Generator) -> Field:
        return pixels + np.float32(self.deviation) * generator.standard_normal(pixels.shape, dtype=np.float32)
