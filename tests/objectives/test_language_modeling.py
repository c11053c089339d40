import torch
import torch.nn.functional as F
from torch import nn

from vlmtrain.batch import TargetStates
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.language_modeling import LanguageModeling


class Writer(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(6, 9)
        self.states, self.targets = torch.randn(rows, 6), torch.randint(9, (rows,))

    def target_states(self, visual, text):
        return TargetStates(self.states, self.targets, self.head)


def test_the_total_is_a_sum_over_supervised_tokens(batch_of):
    writer = Writer(11)
    loss = LanguageModeling(label_smoothing=0.1)(writer, Context(None, batch_of(3)))
    logits = writer.head(writer.states)
    wanted = F.cross_entropy(logits, writer.targets, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(loss.totals["language_modeling"], wanted)
    right, counted = loss.metrics["token_accuracy"]
    assert counted == 11 and right == (logits.argmax(1) == writer.targets).sum()


def test_counts_come_from_the_layout_without_asking_a_device(batch_of):
    batch = batch_of(4)
    assert LanguageModeling().counts(batch) == {"language_modeling": batch.text.supervised}
    assert LanguageModeling(0.0).counts(batch) == LanguageModeling(0.0).weights() == {}


def test_nothing_supervised_gives_zero_and_not_nan(batch_of):
    loss = LanguageModeling()(Writer(0), Context(None, batch_of(2)))
    assert loss.totals["language_modeling"] == 0
    loss.totals["language_modeling"].backward()
