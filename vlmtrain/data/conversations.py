"""The user's own conversations about images, in LLaVA's format."""

from vlmtrain.data.held_out import check_share, hold_out
from vlmtrain.data.sources import conversations


class Conversations:
    """The entries of the file at `path`, with images in the folder `images`; a share of them is held out.

    With the form `Conversation` they are instructions; with `Captioning`, the first answer is a description: the two
    stages of LLaVA.
    """

    together = 1

    def __init__(self, path: str, images: str | None = None, held_out: float = 0.05) -> None:
        check_share(held_out)
        if not path:
            raise ValueError(f"data.path names no file. Give data.path=FILE: {conversations.CONVERSATIONS_TO_WRITE}")
        self.train, self.evaluation = hold_out(conversations.Conversations(path, images), held_out)
