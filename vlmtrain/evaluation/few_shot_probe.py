"""Classes told by a few examples of each."""

import importlib.util
from typing import Any

import torch
from torch import Tensor

from vlmtrain.evaluation.base import EvaluationTools
from vlmtrain.evaluation.classification import ClassifiedImages, Classifier, Classify, embed_images
from vlmtrain.models.capabilities import EmbedsBoth


class FewShotProbe(Classifier):
    """Logistic regression on the frozen vectors of the first `shots` examples of every class in `data.train`.

    CLIP (Radford et al. 2021, arXiv:2103.00020, sections 3.1.5 and 3.2 and appendix A): scikit-learn's L-BFGS with at
    most 1000 iterations.  Deviations: the vectors of the shared space in place of those before the projection (of
    several vectors of an image, the mean), and a penalty that is given, for there are no examples left to choose it by.

    Args:
        shots: examples per class; the paper says that 4 do as well as CLIP's names.
        inverse_penalty: scikit-learn's C; larger fits the examples more closely.
    """

    def __init__(self, shots: int = 4, inverse_penalty: float = 100.0) -> None:
        if shots < 1 or inverse_penalty <= 0:
            raise ValueError(f"FewShotProbe wants shots >= 1 and inverse_penalty > 0; got {shots}, {inverse_penalty}.")
        self.shots = shots
        self.inverse_penalty = inverse_penalty

    def check(self) -> None:
        if importlib.util.find_spec("sklearn") is None:
            raise ValueError("FewShotProbe needs scikit-learn: pip install 'vlmtrain[evaluation]', or leave it out.")

    def prepare(self, model: EmbedsBoth, data: ClassifiedImages, tools: EvaluationTools) -> Classify:
        from sklearn.linear_model import LogisticRegression  # an extra, and takes a second

        vectors, labels = self._examples(model, data, tools)
        probe = LogisticRegression(C=self.inverse_penalty, max_iter=1000).fit(vectors.numpy(), labels.numpy())
        return lambda queries: _scores(probe, queries, len(data.classes))

    def _examples(self, model: EmbedsBoth, data: ClassifiedImages, tools: EvaluationTools) -> tuple[Tensor, Tensor]:
        """[C * shots, E] vectors and their classes; ValueError where a class has too few."""
        vectors: list[Tensor] = []
        found: list[int] = []
        for queries, labels in embed_images(model, data.train, data.classes, tools):
            for vector, label in zip(_features(queries), labels.tolist(), strict=True):
                if found.count(label) < self.shots:
                    vectors, found = [*vectors, vector], [*found, label]
            if len(found) == self.shots * len(data.classes):
                break
        scarce = [name for number, name in enumerate(data.classes) if found.count(number) < self.shots]
        if scarce:
            raise ValueError(
                f"FewShotProbe wants {self.shots} examples of every class; of {', '.join(scarce[:5])} the data set has "
                "fewer in its part for training. Give more, or fewer shots."
            )
        return torch.stack(vectors), torch.tensor(found)


def _features(queries: Tensor) -> Tensor:
    """[B, Q, E] -> [B, E], where scikit-learn wants them."""
    return queries.mean(dim=1).detach().cpu()


def _scores(probe: Any, queries: Tensor, num_classes: int) -> Tensor:
    """[B, C]; of two classes scikit-learn scores the second alone."""
    scores = torch.from_numpy(probe.decision_function(_features(queries).numpy())).to(queries.device).float()
    if num_classes == 2:
        scores = torch.stack([-scores, scores], dim=1)
    return scores
