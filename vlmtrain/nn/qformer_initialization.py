"""Start a Q-Former from a pretrained BERT (BLIP-2, Li et al. 2023, section 3.1): only what reads images is new."""

from pathlib import Path

from vlmtrain.nn.bert_weights import BertWeights
from vlmtrain.nn.qformer import QFormer
from vlmtrain.nn.qformer_text import QFormerText, TextHead


def initialize_from_bert(qformer: QFormer, text: QFormerText, folder: str | Path, head: TextHead | None = None) -> None:
    """Copy embeddings, self-attention and feed-forwards of a Hugging Face BERT; queries get the feed-forwards too.

    Args:
        qformer: its cross-attention and its learned queries keep their values.
        text: gets the words that both vocabularies have room for; rows beyond BERT's stay new.
        folder: holds config.json and model.safetensors of a BertModel, or of one with the prefix `bert.`.

        head: gets BERT's masked-word head, where the folder has one.

    Raises:
        ValueError: the folder holds no BERT, or one of another size.
    """
    bert = BertWeights(folder, "the Q-Former")
    bert.check_sizes(qformer.width, len(qformer.layers), qformer.num_heads, qformer.feed_forward_width)
    bert.copy_embeddings(text.words, text.positions, qformer.norm)
    for index, layer in enumerate(qformer.stack()):
        bert.copy_attention(index, layer.self_attention)
        for feed_forward in (text.stack()[index], layer.feed_forward):
            bert.copy_feed_forward(index, feed_forward)
    if head is not None:
        bert.copy_head(head.dense, head.norm, head.bias)
    bert.tell({"qformer": qformer, "text": text} | ({} if head is None else {"text_head": head}))
