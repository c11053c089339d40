"""The user's own images, without a word about them."""

from vlmtrain.data.held_out import check_share, hold_out
from vlmtrain.data.sources.image_folder import ImageFolder


class Images:
    """The images in the folder `path` and below; a share of them, chosen by a hash of their keys, is held out."""

    together = 1

    def __init__(self, path: str, held_out: float = 0.05) -> None:
        check_share(held_out)
        self.train, self.evaluation = hold_out(ImageFolder(path), held_out)
