"""The cross-batch memory keeps the newest rows, is saved in checkpoints, and provides references."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses
from torch.nn import functional as F

from lookalike.errors import ConfigInvalid
from training.loop.cross_batch_memory import CrossBatchMemory
from training.objectives import Embedded, concat, make_objective


def batches(count, n=3, d=4):
    torch.manual_seed(0)
    return [
        Embedded(F.normalize(torch.randn(n, d), dim=1), torch.arange(n) + n * i, torch.randn(n, d))
        for i in range(count)
    ]


def test_keeps_the_newest_rows_as_pytorch_metric_learning():
    memory = CrossBatchMemory(7, 4)
    theirs = losses.CrossBatchMemory(losses.ContrastiveLoss(), 4, memory_size=7)
    assert memory.contents() is None
    for seen, batch in enumerate(batches(5), start=1):
        memory.add(batch)
        theirs(batch.images, batch.labels)
        kept = memory.contents()
        assert sorted(kept.labels.tolist()) == list(range(max(0, 3 * seen - 7), 3 * seen))
        torch.testing.assert_close(kept.images, theirs.embedding_memory[: len(kept)])
        assert torch.equal(kept.labels, theirs.label_memory[: len(kept)])


def test_captions_are_stored_with_their_images():
    memory = CrossBatchMemory(5, 4, labels=False, texts=True)
    parts = batches(3)
    for batch in parts:
        memory.add(batch)
    kept, all_rows = memory.contents(), concat(parts)
    assert kept.labels is None
    for image, text in zip(kept.images, kept.texts, strict=True):
        row = (all_rows.images == image).all(1).nonzero().item()
        assert torch.equal(all_rows.texts[row], text)


def test_larger_batch_leaves_its_last_rows():
    memory, batch = CrossBatchMemory(2, 4), batches(1, n=5)[0]
    memory.add(batch)
    assert sorted(memory.contents().labels.tolist()) == [3, 4]


def test_returned_rows_do_not_change():
    memory, (first, second) = CrossBatchMemory(3, 4), batches(2)
    memory.add(first)
    kept = memory.contents()
    memory.add(second)
    assert torch.equal(kept.images, first.images)
    assert torch.equal(kept.labels, first.labels)


def test_checkpoint_saves_rows_and_position():
    whole, first = CrossBatchMemory(7, 4), CrossBatchMemory(7, 4)
    parts = batches(4)
    for batch in parts:
        whole.add(batch)
    for batch in parts[:2]:
        first.add(batch)
    resumed = CrossBatchMemory(7, 4)
    resumed.load_state_dict(first.state_dict())
    for batch in parts[2:]:
        resumed.add(batch)
    assert torch.equal(resumed.contents().labels, whole.contents().labels)
    assert torch.equal(resumed.contents().images, whole.contents().images)


def test_memory_provides_positives_for_single_rows():
    old, new = batches(2)
    memory, objective = CrossBatchMemory(8, 4), make_objective("info_nce")
    memory.add(old)
    rows = new.images.clone().requires_grad_()
    batch = Embedded(rows, old.labels)  # the same classes once more, one row each
    assert objective(batch).loss.item() == 0
    loss = objective(batch, memory.contents()).loss
    loss.backward()
    assert loss > 0
    assert rows.grad.abs().max() > 0


def test_incomplete_batch_and_empty_memory_are_rejected():
    with pytest.raises(ValueError, match="lacks labels or texts"):
        CrossBatchMemory(4, 4).add(Embedded(torch.eye(4)))
    with pytest.raises(ConfigInvalid, match="0 rows"):
        CrossBatchMemory(0, 4)
