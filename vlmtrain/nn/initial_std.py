"""How large random weights start."""

REFERENCE_STD, REFERENCE_INPUTS = 0.02, 768  # BERT-base and ViT-Base


def initial_std(num_inputs: int) -> float:
    """0.02 from 768 inputs on, as BERT and ViT have it; for fewer what gives the same variance of the output.

    With 0.02 a layer of 128 inputs starts so small that attention is all but uniform and takes long to find anything.
    """
    return REFERENCE_STD * max(1.0, REFERENCE_INPUTS / num_inputs) ** 0.5
