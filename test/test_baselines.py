"""The DualTalk baseline against its golden forward pass, and the baselines that do not listen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from timar_ros.baselines.dualtalk import DualTalk, DualTalkConfig
from timar_ros.baselines.naive import MeanPose, RandomClip
from timar_ros.data.dualtalk_folder import DualTalkFolder
from timar_ros.errors import UserError

SPEECH = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "conv_dim": [8, 8],
    "conv_kernel": [320, 3], "conv_stride": [160, 2], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True,
}  # fmt: skip


def test_forward_pass_equals_the_published_implementations(shared: Path) -> None:
    meta = json.loads((shared / "golden/dualtalk.json").read_text())
    model = DualTalk(DualTalkConfig(feature_dim=meta["feature_dim"]), meta["speech"]).eval()
    weights = {k: v.float() for k, v in load_file(shared / "golden/weights/dualtalk.safetensors").items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not missing
    assert all(name.endswith("masked_spec_embed") for name in unexpected)
    given = load_file(shared / "golden/dualtalk.safetensors")
    with torch.no_grad():
        motion = model(
            given["agent_speech"].float() / 6000, given["user_speech"].float() / 6000, given["user_motion"].float()
        )
    assert float((motion - given["motion"]).abs().max()) <= 1e-5


def test_loss_falls_and_untracked_motion_is_taken() -> None:
    torch.manual_seed(0)
    model = DualTalk(DualTalkConfig(feature_dim=16, feedforward=32, standardise=True), SPEECH)
    speech, motion = torch.randn(2, 2, 16000), torch.randn(2, 25, 56)
    motion[:, :, 50:] = torch.nan
    target = torch.ones(2, 25, 56)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = model.training_loss(speech[0], speech[1], motion, target)
        assert loss.shape == (2, 25)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        losses.append(float(loss.mean().detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_unknown_configuration_is_refused() -> None:
    with pytest.raises(UserError, match="depth"):
        DualTalkConfig.from_dict({"depth": 3})
    with pytest.raises(UserError, match="multiple"):
        DualTalkConfig(feature_dim=10)


def test_naive_baselines_use_training_motion_only(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    for speaker, value in ((1, 0.0), (2, 2.0)):
        soundfile.write(folder / f"a_speaker{speaker}.wav", np.zeros(640 * 20, np.float32), 16000)
        exp = np.full((20, 50), value, np.float32) + np.arange(20, dtype=np.float32)[:, None] * 0.01
        np.savez(folder / f"a_speaker{speaker}.npz", exp=exp, pose=np.full((20, 6), value, np.float32))
    data = DualTalkFolder(tmp_path)
    mean = MeanPose(data).generate(7)
    assert mean.shape == (7, 56)
    assert mean[:, 50:] == pytest.approx(1.0)
    longer = RandomClip(data, seed=1).generate(50)
    assert longer.shape == (50, 56)
    assert set(np.unique(longer[:, 50:])) <= {0.0, 2.0}
    assert np.abs(np.diff(longer[:, 0])).max() <= 0.0101
    assert np.array_equal(longer, RandomClip(data, seed=1).generate(50))
