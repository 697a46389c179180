"""The fitting loop: a run that was cut off ends with the very weights of one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shield_engine.errors import TrainingError
from shield_engine.training import network
from shield_engine.training.network import Examples, FitSettings, fit

torch = pytest.importorskip("torch")


class Small(torch.nn.Module):  # type: ignore[misc, name-defined]
    """An embedding and two heads, with the parts that `fit` asks of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Embedding(50, 8)
        self.dropout = torch.nn.Dropout(0.3)
        self.heads = torch.nn.ModuleDict({"a": torch.nn.Linear(8, 2), "b": torch.nn.Linear(8, 3)})

    def forward(self, ids: Any, mask: Any, head: str) -> Any:
        """Return the logits of one head."""
        pooled = (self.encoder(ids) * mask.unsqueeze(-1)).sum(1)
        return self.heads[head](self.dropout(pooled))


def _examples() -> dict[str, Examples]:
    draw = np.random.default_rng(1)
    ids = [draw.integers(1, 50, size=int(draw.integers(2, 9))).tolist() for _ in range(60)]
    soft = np.full((60, 3), 1 / 3).tolist()
    return {
        "a": Examples(ids, [int(sum(row) % 2) for row in ids], 2.0),
        "b": Examples(ids, [int(sum(row) % 3) for row in ids]),
        "b#replay": Examples(ids, soft, 0.5),
    }


def _fitted(**options: Any) -> Any:
    torch.manual_seed(3)
    model = Small()
    fit(model, _examples(), FitSettings(batch_size=4, learning_rate=0.01), **options)
    return model.state_dict()


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after a checkpoint and called again, it ends with bit-identical weights."""
    monkeypatch.setattr(network, "_CHECKPOINT_STEPS", 20)
    whole = _fitted()
    path = tmp_path / "checkpoint.pt"

    class Cut(Exception):  # noqa: N818 - stands for a power cut
        pass

    def cut(step: int, steps: int, losses: object) -> None:
        raise Cut

    with pytest.raises(Cut):
        _fitted(checkpoint=path, report=cut)  # reports come every 50 steps, after two checkpoints
    assert path.exists()
    resumed = _fitted(checkpoint=path)
    assert not path.exists()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other settings make another run; its checkpoint is not silently gone on from."""
    monkeypatch.setattr(network, "_CHECKPOINT_STEPS", 20)
    path = tmp_path / "checkpoint.pt"
    torch.save({"mark": "other"}, path)
    with pytest.raises(TrainingError, match="other rows or settings"):
        _fitted(checkpoint=path)
