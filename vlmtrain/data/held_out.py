"""Sets a share of the user's own samples aside for evaluation."""

from vlmtrain.data.keys import fraction_of
from vlmtrain.data.sources.base import Source
from vlmtrain.data.subset import Subset


def check_share(share: float) -> None:
    """ValueError where it is none; before the data is read, which may take long."""
    if not 0 <= share < 1:
        raise ValueError(f"held_out={share} must be a share of the samples, from 0 to below 1")


def hold_out(source: Source, share: float) -> tuple[Source, dict[str, Source]]:
    """What is trained on, and what is held out, if anything: chosen by a hash of the samples' keys.

    The hash makes the choice stable: samples that are added later move none from one part to the other.
    """
    draws = [fraction_of("held out", source.key(index)) for index in range(len(source))]
    chosen = {index for index, draw in enumerate(draws) if draw < share}
    if share > 0 and not chosen:
        chosen = {min(range(len(draws)), key=draws.__getitem__)}
    if len(chosen) == len(source):
        raise ValueError(f"{source.name} has {len(source)} samples all held out: add data or set held_out=0")
    kept = [index for index in range(len(source)) if index not in chosen]
    train = Subset(source, kept, "train")
    return train, {"held_out": Subset(source, sorted(chosen), "held out")} if chosen else {}
