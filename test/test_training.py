"""Training: configuration, masks, batches that do not depend on the process, and a loop that resumes bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from timar_ros.cli.main import main
from timar_ros.errors import UserError
from timar_ros.model import TimarConfig, create_timar, load_timar
from timar_ros.model import tokens as layout
from timar_ros.training.alignment import align, positions
from timar_ros.training.audio_augmentation import augment
from timar_ros.training.backgrounds import background
from timar_ros.training.dataset import StepSampler, TrainingClips, collate, motion_statistics
from timar_ros.training.filterbank import fit_filterbank, initialise_filters, log_mel
from timar_ros.training.masks import draw_masks, mask_share
from timar_ros.training.model_building import build_model
from timar_ros.training.objective import (
    HEAD_CHANGE,
    Objective,
    clip_conditioning,
    head_change_error,
    sample_clips,
)
from timar_ros.training.run_config import AugmentConfig, MaskConfig, TrainConfig, config_from_dict, load_config
from timar_ros.training.run_state import newest_state
from timar_ros.training.schedule import learning_rate, total_steps, warmup_steps
from timar_ros.training.spread import bisect, match_spread
from timar_ros.training.trainer import Trainer

SPEECH = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "conv_dim": [16, 16],
    "conv_kernel": [320, 3], "conv_stride": [160, 2], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True,
    "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}  # fmt: skip
MODEL = {
    "size": "mini", "speech_width": 16, "token_width": 16, "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2,
    "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "head_width": 16, "head_depth": 1, "dropout": 0.0,
    "context_seconds": 2.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short conversations of noise bursts, the jaw following them, in train and test."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        folder = root / split
        folder.mkdir()
        for name in ("a", "b", "c"):
            for speaker in (1, 2):
                loud = np.repeat(rng.random(12) > 0.5, 10).astype(np.float32)
                audio = rng.standard_normal(120 * 640).astype(np.float32) * np.repeat(0.01 + 0.3 * loud, 640)
                soundfile.write(folder / f"{name}_speaker{speaker}.wav", np.clip(audio, -1, 1), 16000)
                pose = np.zeros((120, 6), np.float32)
                pose[:, 3] = 0.1 * loud
                exp = rng.standard_normal((120, 50)).astype(np.float32)
                np.savez(folder / f"{name}_speaker{speaker}.npz", exp=exp, pose=pose)
    return root


def small(source: Path, folder: Path, /, **changes: Any) -> TrainConfig:
    """A run of a very small model."""
    content: dict[str, Any] = {
        "model": dict(MODEL),
        "speech": {"trainable": True, "config": dict(SPEECH)},
        "data": {"path": str(source), "clip_seconds": 2.0, "validation_split": None},
        "masks": {"full_share": 0.5, "turn_drop": 0.2, "tracker_drop": 0.2, "group_drop": 0.3},
        "augment": {"probability": 0.5, "speed": 0.1},
        "optimiser": {
            "batch_size": 4, "steps": 4, "epochs": None, "learning_rate": 1e-3, "warmup_steps": 2, "noise_draws": 2,
            "precision": "no", "ema": 0.9,
        },
        "run": {"folder": str(folder), "checkpoint_every": 2, "log_every": 1},
    }  # fmt: skip
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    return config_from_dict(content)


class TestConfig:
    def test_every_file_in_config_train_is_valid(self, repository: Path) -> None:
        files = sorted((repository / "config/train").glob("*.yaml"))
        assert {"timar_large.yaml", "timar_mini.yaml"} <= {f.name for f in files}
        for file in files:
            load_config(file)

    def test_paper_recipe(self, repository: Path) -> None:
        config = load_config(repository / "config/train/timar_large.yaml")
        assert config.speech.weights == "facebook/wav2vec2-large-960h-lv60-self"
        assert not config.speech.trainable
        assert (config.optimiser.betas, config.optimiser.weight_decay) == ((0.9, 0.95), 0.02)
        assert (config.optimiser.clip_norm, config.optimiser.ema, config.optimiser.noise_draws) == (3.0, 0.9999, 4)
        assert (config.optimiser.epochs, config.optimiser.warmup_epochs, config.optimiser.schedule) == (
            400,
            100,
            "constant",
        )
        assert config.optimiser.learning_rate == pytest.approx(1e-4 * config.optimiser.batch_size / 256)
        assert (config.masks.mean, config.masks.deviation, config.masks.minimum) == (1.0, 0.25, 0.7)
        assert config.masks.token_drop == 0.1

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"optimizer": {}}, "unknown key 'optimizer'"),
            ({"optimiser": {"lr": 1}}, "unknown key 'optimiser.lr'"),
            ({"optimiser": {"batch_size": "many"}}, "optimiser.batch_size must be of type int"),
            ({"optimiser": {"batch_size": True}}, "optimiser.batch_size must be of type int"),
            ({"optimiser": {"steps": 3}}, "one of steps, epochs and seconds"),
            ({"optimiser": {"betas": [0.9]}}, "optimiser.betas must be a list of 2"),
            ({"masks": {"token_drop": 2.0}}, "masks.token_drop must be a probability"),
            ({"family": "gan"}, "family must be one of"),
            ({"speech": {"config": {}, "weights": "x"}}, "speech must be given either"),
            ([1], "must be a mapping"),
        ],
    )
    def test_mistakes_are_named(self, content: object, said: str) -> None:
        if isinstance(content, dict):
            content = {"speech": {"weights": "x"}, **content}
        with pytest.raises(UserError, match=said):
            config_from_dict(content)

    def test_no_objects_from_yaml(self, tmp_path: Path) -> None:
        file = tmp_path / "x.yaml"
        file.write_text("name: !!python/object/apply:os.getcwd []\n")
        with pytest.raises(UserError, match="no valid YAML"):
            load_config(file)

    def test_numbers_as_yaml_writes_them(self) -> None:
        content = yaml.safe_load("{speech: {weights: x}, optimiser: {learning_rate: 1e-3}}")
        assert config_from_dict(content).optimiser.learning_rate == 1e-3

    def test_round_trip(self, tmp_path: Path, data: Path) -> None:
        config = small(data, tmp_path)
        assert config_from_dict(config.to_dict()) == config


class TestMasks:
    def test_share_is_the_papers(self) -> None:
        rng = np.random.default_rng(0)
        shares = np.array([mask_share(MaskConfig(), rng) for _ in range(2000)])
        assert shares.min() >= 0.7
        assert shares.max() <= 1
        # Mean of a normal(1, 0.25) between 0.7 and 1: 1 - 0.25 (phi(0) - phi(1.2)) / (Phi(1.2) - 1/2).
        assert shares.mean() == pytest.approx(0.867, abs=0.005)

    def test_counts_and_drops(self) -> None:
        rng = np.random.default_rng(1)
        masks = draw_masks(200, 25, 0.801, MaskConfig(token_drop=0.0, turn_drop=1.0), rng)
        assert masks.agent.sum() == 161
        assert masks.user_speech.all()
        assert masks.user_motion.all()
        masks = draw_masks(200, 25, 1.0, MaskConfig(token_drop=0.0, tracker_drop=1.0), rng)
        assert masks.user_motion.all()
        assert not masks.user_speech.any()
        masks = draw_masks(200, 25, 1.0, MaskConfig(token_drop=0.0, group_drop=1.0), rng)
        assert len(masks.untracked) in (1, 2)

    def test_what_is_not_heard_yet_is_a_suffix(self) -> None:
        """As rolling turns have it: the user's newest turn is missing, in part or whole, and never anything older."""
        rng = np.random.default_rng(2)
        options = MaskConfig(token_drop=0.0, turn_drop=0.0, tracker_drop=0.0, group_drop=0.0, unheard=1.0)
        drawn = [draw_masks(200, 25, 1.0, options, rng) for _ in range(400)]
        for masks in drawn:
            assert 175 <= masks.user_heard <= 200
            assert 180 <= masks.agent_heard <= 200
            later = np.arange(200) >= masks.user_heard
            np.testing.assert_array_equal(masks.user_speech, later)
            np.testing.assert_array_equal(masks.user_motion, later)
        lost = np.array([200 - masks.user_heard for masks in drawn])
        assert 0.4 < (lost == 25).mean() < 0.65
        assert 0.2 < (lost == 0).mean() < 0.4
        assert len(set(lost)) > 10
        never = draw_masks(200, 25, 1.0, MaskConfig(token_drop=0.0, turn_drop=0.0, tracker_drop=0.0), rng)
        assert (never.user_heard, never.agent_heard) == (200, 200)

    def test_a_user_who_is_not_there(self) -> None:
        masks = draw_masks(200, 25, 1.0, MaskConfig(token_drop=0.0, user_drop=1.0), np.random.default_rng(3))
        assert masks.user_speech.all()
        assert masks.user_motion.all()


class TestBackgrounds:
    def test_unit_power_and_the_same_for_the_same_seed(self) -> None:
        def voice(samples: int, rng: np.random.Generator) -> np.ndarray:
            return rng.standard_normal(samples).astype(np.float32)

        for seed in range(12):
            one, again = (background(16000, np.random.default_rng(seed), voice) for _ in range(2))
            assert one.dtype == np.float32
            assert one.shape == (16000,)
            np.testing.assert_array_equal(one, again)
            assert np.sqrt(np.square(one).mean()) == pytest.approx(1.0, rel=0.02)
        assert not np.array_equal(one, background(16000, np.random.default_rng(99), voice))

    def test_they_change_what_is_heard_and_never_the_motion(self, data: Path, tmp_path: Path) -> None:
        heard = []
        for probability in (0.0, 1.0):
            options = {"probability": 1.0, "speed": 0.0, "background_probability": probability}
            clips = TrainingClips(small(data, tmp_path, augment=options), 25, 1000)
            heard.append([clips[0, 1, index] for index in range(3)])
            for index in range(3):
                again = clips[0, 1, index]
                for key in ("agent_speech", "user_speech", "agent_motion"):
                    assert torch.equal(torch.as_tensor(heard[-1][index][key]), torch.as_tensor(again[key])), key
        for clean, noisy in zip(*heard, strict=True):
            assert torch.equal(torch.as_tensor(clean["agent_motion"]), torch.as_tensor(noisy["agent_motion"]))
            assert not torch.equal(torch.as_tensor(clean["agent_speech"]), torch.as_tensor(noisy["agent_speech"]))


class TestBatches:
    def test_a_step_is_the_same_for_one_process_and_two(self) -> None:
        whole = [key for batch in StepSampler(7, 4, 4, 6, 0, 0, 0, 1) for key in batch]
        halves = [list(StepSampler(7, 4, 2, 6, 0, 0, rank, 2)) for rank in (0, 1)]
        joined = [key for a, b in zip(*halves, strict=True) for key in (*a, *b)]
        assert sorted(whole) == sorted(joined)
        # Every clip once an epoch, whatever the steps' borders.
        assert sorted(index for _, _, index in whole[:7]) == list(range(7))

    def test_resuming_sees_what_it_would_have_seen(self) -> None:
        whole = list(StepSampler(7, 4, 2, 6, 3, 0, 0, 1))
        assert list(StepSampler(7, 4, 2, 6, 3, 4, 0, 1)) == whole[8:]

    def test_batch_that_does_not_divide_is_refused(self) -> None:
        with pytest.raises(UserError, match="multiple"):
            StepSampler(7, 5, 2, 6, 0, 0, 0, 2)

    def test_clips_are_reproducible_and_differ(self, data: Path, tmp_path: Path) -> None:
        clips = TrainingClips(small(data, tmp_path), 25, 1000)
        one, again, other = clips[3, 1, 0], clips[3, 1, 0], clips[4, 1, 0]
        for key, value in one.items():
            same = value == again[key] if isinstance(value, str) else torch.equal(
                torch.as_tensor(value).nan_to_num(9), torch.as_tensor(again[key]).nan_to_num(9)
            )  # fmt: skip
            assert same, key
        assert not torch.equal(torch.as_tensor(one["agent_speech"]), torch.as_tensor(other["agent_speech"]))
        assert torch.as_tensor(one["agent_speech"]).shape == (32000,)

    def test_neutral_head_moves_the_mean_and_nothing_else(self, data: Path, tmp_path: Path) -> None:
        root = tmp_path / "leaning"
        shutil.copytree(data, root)
        for index, path in enumerate(sorted(root.glob("train/*.npz"))):
            with np.load(path) as kept:
                pose, exp = kept["pose"].copy(), kept["exp"]
            pose[:, :3] = 0.1 * index + np.sin(np.arange(120))[:, None]
            np.savez(path, exp=exp, pose=pose)
        settings = {"random_starts": False, "neutral_head": True}
        plain = {"augment": {"probability": 0.0, "speed": 0.0}}
        clips = TrainingClips(small(root, tmp_path, data=settings, **plain), 25, 1000)
        for index in range(len(clips)):
            motion = torch.as_tensor(clips[0, 0, index]["agent_motion"])
            truth = np.array(clips.folder.load(clips.clips[index])["agent_motion"])
            moved = motion[:, 53:].numpy() - truth[:, 53:]
            assert np.ptp(moved, axis=0).max() < 1e-5
            assert np.allclose(motion[:, :53].numpy(), truth[:, :53])
        chosen = clips.clips
        mean, deviation = motion_statistics(clips.folder, chosen, neutral_head=True)
        assert deviation[53] == pytest.approx(np.sin(np.arange(100)).std(), rel=0.05)
        assert mean[53] == pytest.approx(0.25 + np.sin(np.arange(120)).mean(), abs=0.06)

    def test_noise_levels(self, data: Path, tmp_path: Path) -> None:
        options = {"noise_draws": 4, "noisiest_share": 0.25, "bound_steps": 5}
        steps = TrainingClips(small(data, tmp_path, optimiser=options), 25, 1000)[0, 0, 0]["timesteps"]
        assert isinstance(steps, torch.Tensor)
        assert set(steps[0].tolist()) == {999}
        assert set(steps[1].tolist()) <= {0, 250, 500, 749, 750, 999}
        assert len(set(steps[2].tolist())) > 20

    def test_augmentation_keeps_timing(self) -> None:
        rng = np.random.default_rng(0)
        speech = np.zeros(64000, np.float32)
        speech[20000:40000] = rng.standard_normal(20000)
        options = AugmentConfig(probability=1.0, snr_db=(20, 40), crosstalk_probability=0.0)
        for _ in range(10):
            changed, _ = augment(speech, np.zeros_like(speech), options, rng)
            loud = np.sqrt(np.mean(changed[20000:40000] ** 2))
            assert np.isfinite(changed).all()
            assert np.sqrt(np.mean(changed[:16000] ** 2)) < 0.4 * loud


class TestStart:
    def test_positions_are_alike_for_the_same_frame_and_differ_in_time(self) -> None:
        rows = torch.nn.functional.normalize(positions(2, 25, 64, 0) - positions(2, 25, 64, 0).mean(0), dim=1)
        frame = 10
        speech, agent = 2 + frame, 8 + 75 + frame
        alike = rows[agent] @ rows[speech]
        assert alike > rows[agent] @ rows[speech + 3] + 0.02
        assert alike > rows[agent] @ rows[110 + speech] + 0.1

    def test_aligned_attention_looks_at_its_own_time(self) -> None:
        model = create_timar(TimarConfig.of_size("mini"), seed=0)
        align(model)
        block: Any = model.encoder_blocks[0]
        x = model.z_proj_ln(model.encoder_pos_embed_learned[:, :220])
        q, k, _ = block.attn.project(block.norm1(x))
        weight = torch.softmax((q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5, -1).mean(1)[0]
        agent = 110 + 8 + 75 + 10
        speech = weight[agent, 110 + 2 : 110 + 27]
        assert abs(int(speech.argmax()) - 10) <= 1
        assert speech.sum() > 1.5 * weight[agent, 2:27].sum()

    def test_half_of_the_heads_look_back(self) -> None:
        model = create_timar(TimarConfig.of_size("mini"), seed=0)
        align(model)
        x = model.z_proj_ln(model.encoder_pos_embed_learned[:, :220])
        lags = []
        for blocks in model.encoder_blocks:
            block: Any = blocks
            q, k, _ = block.attn.project(block.norm1(x))
            scores = (q @ k.transpose(-1, -2))[0, :, 110 + 8 + 75 + 24]
            # The user's speech of two turns, frame by frame; the agent's frame is the last of the second.
            heard = torch.cat((scores[:, 2:27], scores[:, 112:137]), dim=1)
            lags += (49 - heard.argmax(1)).tolist()
        own, back = [lags[i] for i in range(len(lags)) if i % 4 < 2], [lags[i] for i in range(len(lags)) if i % 4 > 1]
        assert max(own) <= 1
        assert back == pytest.approx([25 * (i + 1) / len(back) for i in range(len(back))], abs=2)

    def test_an_encoder_decoder_hears_from_the_start_as_well(self) -> None:
        heard = {}
        for encoder_only in (True, False):
            model = create_timar(replace(TimarConfig.of_size("mini"), encoder_only=encoder_only), seed=0)
            align(model)
            generator = torch.Generator().manual_seed(0)
            blocks = [torch.randn((4, 2, 25, model.config.token_width), generator=generator) for _ in range(4)]
            masked = layout.expand_agent_mask(torch.ones((4, 50), dtype=torch.bool), 25)
            made = []
            for _ in range(2):
                made.append(model.condition(model.assemble(*blocks).flatten(1, 2), masked).unflatten(1, (2, -1)))
                blocks[2][:, 1, 10] = torch.randn(blocks[2][:, 1, 10].shape, generator=generator)
            change = (made[1] - made[0])[:, 1, layout.agent_motion_slice(25)].square().mean((0, 2)).sqrt()
            assert change[10] > 2 * change[:8].mean()
            heard[encoder_only] = change[10].item()
        assert heard[False] > 0.5 * heard[True]

    def test_filterbank_start_and_fit(self) -> None:
        torch.manual_seed(0)
        model = build_model(config_from_dict({"model": MODEL, "speech": {"trainable": True, "config": SPEECH}}))
        encoder = model.speech_encoder
        assert isinstance(encoder, torch.nn.Module)
        assert initialise_filters(encoder)
        rng = np.random.default_rng(0)

        def tones() -> Any:
            while True:
                time = np.arange(16000) / 16000
                level = np.repeat(10 ** rng.uniform(-2, 0, (8, 5)), 3200, axis=1)
                yield torch.from_numpy(
                    (level * np.sin(2 * np.pi * rng.uniform(200, 4000, (8, 1)) * time)).astype(np.float32)
                )

        explained = fit_filterbank(encoder, tones(), 25, 150, 3e-3, nullcontext)
        assert explained > 0.3

    def test_log_mel_sees_level_and_pitch(self) -> None:
        time = torch.arange(16000) / 16000
        low, high = torch.sin(2 * np.pi * 300 * time), torch.sin(2 * np.pi * 3000 * time)
        energies = log_mel(torch.stack((low, high, 0.1 * high)), 25)
        assert energies.shape == (3, 25, 40)
        assert energies[0, 12].argmax() < energies[1, 12].argmax()
        assert float(energies[1, 12].max() - energies[2, 12].max()) == pytest.approx(np.log(100), abs=0.1)


class TestSchedule:
    def test_paper(self) -> None:
        options = small_options(epochs=400, steps=None, warmup_epochs=100, warmup_steps=None, batch_size=10)
        assert (total_steps(options, 100), warmup_steps(options, 100)) == (4000, 1000)
        rates = [learning_rate(s, 4000, 1000, options) for s in (0, 499, 999, 3999)]
        assert rates == pytest.approx([1e-6, 5e-4, 1e-3, 1e-3])

    @pytest.mark.parametrize("schedule", ["cosine", "decay"])
    def test_falling_to_nothing(self, schedule: str) -> None:
        options = small_options(schedule=schedule, decay_share=0.2)
        assert learning_rate(99, 100, 10, options) < 0.06 * options.learning_rate
        assert learning_rate(11, 100, 10, options) > 0.99 * options.learning_rate


def small_options(**changes: Any) -> Any:
    from timar_ros.training.run_config import OptimiserConfig

    return replace(OptimiserConfig(learning_rate=1e-3), **changes)


class TestObjective:
    @pytest.mark.parametrize("lowered", [False, True], ids=["fp32", "bf16"])
    @pytest.mark.parametrize(
        "variant",
        [{}, {"diffusion": False}, {"causal": False}, {"encoder_only": False}, {"turn_seconds": 0.4},
         {"turn_seconds": 2.0}],
    )  # fmt: skip
    def test_every_variant_trains_and_samples(
        self, data: Path, tmp_path: Path, variant: dict[str, Any], lowered: bool
    ) -> None:
        config = small(data, tmp_path, model={**MODEL, **variant}, aligned_start=True)
        model = build_model(config)
        clips = TrainingClips(config, model.config.turn_frames, 1000)
        batch = collate([clips[0, i, i] for i in range(2)])
        batch.pop("name")
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            loss, error, count = Objective(model)(batch)
        (loss / count).backward()
        assert torch.isfinite(loss)
        assert 0 < float(error) <= float(loss.detach()) + 1e-6
        missing = [
            n for n, p in model.named_parameters() if p.requires_grad and p.grad is None and "masked_spec" not in n
        ]
        assert not missing, missing
        assert sample_clips(model, batch, torch.Generator().manual_seed(0)).shape == (2, 50, 56)


class TestHeadChange:
    """What it counts: change within turns, of the head alone."""

    @staticmethod
    def error(offset: torch.Tensor) -> torch.Tensor:
        """Of two clips of two turns of 5 frames, with what a network says too much, ``[20, 56]``."""
        target = torch.randn((20, 56), generator=torch.Generator().manual_seed(0))
        net = lambda noisy, steps, cond: torch.cat((target + offset, noisy), dim=1)  # noqa: E731
        model: Any = SimpleNamespace(config=SimpleNamespace(turn_frames=5), diffloss=SimpleNamespace(net=net))
        return head_change_error(model, target, torch.zeros(20, 8), torch.zeros(2, 10, 56))

    def test_a_turn_that_is_elsewhere_moves_right(self) -> None:
        places = torch.arange(4.0).repeat_interleave(5).unsqueeze(1).repeat(1, 56)
        assert self.error(places).abs().max() < 1e-8

    def test_the_face_does_not_count(self) -> None:
        offset = torch.randn((20, 56))
        offset[:, 53:] = 0
        assert self.error(offset).abs().max() < 1e-8

    def test_a_step_within_a_turn_counts_once(self) -> None:
        offset = torch.zeros((20, 56))
        offset[7:10, 53] = HEAD_CHANGE
        found = self.error(offset)
        assert found[7] == pytest.approx(1 / 3, rel=1e-3)
        found[7] = 0
        assert found.abs().max() < 1e-8

    def test_it_is_part_of_the_loss(self, data: Path, tmp_path: Path) -> None:
        config = small(data, tmp_path)
        model = build_model(config).eval()
        batch = collate([TrainingClips(config, 25, 1000)[0, i, i] for i in range(2)])
        batch.pop("name")
        batch["agent_mask"][:] = True
        without, _, count = Objective(model, config.optimiser)(batch)
        both, _, _ = Objective(model, replace(config.optimiser, change_weight=2.0))(batch)
        cond = clip_conditioning(model, batch, batch["agent_mask"]).flatten(0, 1)
        target = model.standardise(batch["agent_motion"]).flatten(0, 1)
        change = head_change_error(model, target, cond, batch["noise"][0])
        assert float((both - without).detach() / count) == pytest.approx(2 * float(change.mean()), rel=1e-4)
        more = replace(config.optimiser, change_weight=2.0, listening_weight=5.0)
        batch["agent_silent"] = torch.zeros(batch["agent_mask"].shape, dtype=torch.bool)
        batch["agent_silent"][:, 30:] = True
        weighted, _, _ = Objective(model, more)(batch)
        extra = 8 * (change * batch["agent_silent"].flatten()).sum() / len(change)
        assert float((weighted - both).detach() / count) == pytest.approx(float(extra), rel=1e-4)

    def test_silence_is_where_the_agents_file_has_no_voice(self, data: Path, tmp_path: Path) -> None:
        plain = {"augment": {"probability": 0.0, "speed": 0.0}, "data": {"random_starts": False}}
        config = small(data, tmp_path, optimiser={"listening_weight": 3.0}, **plain)
        item: Any = TrainingClips(config, 25, 1000)[0, 0, 0]
        loud = item["agent_motion"][:, 50] > 0.05
        assert bool(loud.any())
        assert float((item["agent_silent"] == ~loud).float().mean()) > 0.8


class TestSpread:
    def test_every_column_is_brought_to_its_own_variance(self) -> None:
        wanted = torch.tensor([1.0, 0.8, 2.0, 1e-6, 9.0])
        found = bisect(lambda added: 0.8 * torch.exp(1.5 * added), wanted)
        assert 0.8 * torch.exp(1.5 * found[:3]) == pytest.approx(wanted[:3], rel=0.01)
        assert found[3:] == pytest.approx(torch.tensor([-1.0, 1.0]), abs=0.01)

    def test_only_the_learned_variance_changes(self, data: Path, tmp_path: Path) -> None:
        config = small(data, tmp_path, model={**MODEL, "standardise": True})
        model = build_model(config)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        added = match_spread(model, config)
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == {"diffloss.net.final_layer.linear.bias"}
        name = changed.pop()
        torch.testing.assert_close(model.state_dict()[name] - before[name], torch.cat((torch.zeros(56), added)))


class TestTrainingOn:
    def test_goes_on_from_a_model_and_says_what_is_new(
        self, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = Trainer(small(data, tmp_path / "first"))
        first.fit()
        source = str(tmp_path / "first/model")
        same = build_model(small(data, tmp_path / "same", start=source))
        given, taken = load_timar(source).state_dict(), same.state_dict()
        assert all(torch.equal(taken[key], value) for key, value in given.items())
        with caplog.at_level("INFO", "timar_ros"):
            other = build_model(small(data, tmp_path / "other", start=source, model={**MODEL, "diffusion": False}))
        assert "new: mlp_head" in caplog.text
        key = "encoder_blocks.0.attn.qkv.weight"
        assert torch.equal(other.state_dict()[key], given[key])

    def test_its_speech_encoder_can_be_taken_alone_and_frozen(self, data: Path, tmp_path: Path) -> None:
        first = Trainer(small(data, tmp_path / "first"))
        first.fit()
        source = str(tmp_path / "first/model")
        speech = {"weights": source, "config": None, "trainable": False}
        second = Trainer(small(data, tmp_path / "second", speech=speech))
        second.fit()
        given, kept = load_timar(source).state_dict(), load_timar(tmp_path / "second/model").state_dict()
        heard = [key for key in given if key.startswith("speech_encoder.")]
        assert heard and all(torch.equal(kept[key], given[key]) for key in heard)

    def test_what_is_no_model_is_refused(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError):
            build_model(small(data, tmp_path, start=str(tmp_path)))

    @pytest.mark.parametrize("change", ["optimiser", "=1", "optimiser.steps.x=1", "optimiser.stops=3"])
    def test_bad_changes_are_refused(self, repository: Path, change: str) -> None:
        with pytest.raises(UserError):
            load_config(repository / "config/train/timar_mini.yaml", [change])

    def test_changes_replace_values(self, repository: Path) -> None:
        changes = ["optimiser.steps=7", "model.causal=false", "data.path=x=y"]
        config = load_config(repository / "config/train/timar_mini.yaml", changes)
        assert (config.optimiser.steps, config.model["causal"], config.data.path) == (7, False, "x=y")


class TestTrainer:
    def test_resuming_continues_bit_for_bit(self, data: Path, tmp_path: Path) -> None:
        through = Trainer(small(data, tmp_path / "through"))
        metrics = through.fit()
        stopped = small(data, tmp_path / "resumed")
        first = Trainer(stopped)

        def interrupt(step: int, total: int, metrics: dict[str, float]) -> None:
            if step == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            first.fit(interrupt)
        with pytest.raises(UserError, match="--resume"):
            Trainer(stopped)
        second = Trainer(stopped, resume=True)
        assert second.step == 3
        again = second.fit()
        assert again["loss"] == metrics["loss"]
        for name, value in through.model.state_dict().items():
            assert torch.equal(value, second.model.state_dict()[name]), name
        for name, value in through.average.values.items():
            assert torch.equal(value, second.average.values[name]), name

    def test_leaves_a_model_that_loads_as_trained(self, data: Path, tmp_path: Path) -> None:
        config = small(data, tmp_path, data={"validation_split": "test", "validation_clips": 2})
        metrics = Trainer(config).fit()
        assert {"loss", "val_loss", "val_mse_jaw", "val_jaw_energy"} <= set(metrics)
        model = load_timar(tmp_path / "model")
        assert model.trained
        assert float(model.motion_scale[50]) == pytest.approx(0.05, abs=0.01)
        described = json.loads((tmp_path / "model/config.json").read_text())
        assert config_from_dict(described["training"]["config"]) == config
        assert (tmp_path / "log.csv").read_text().startswith("step,name,value")
        assert list((tmp_path / "tensorboard").iterdir())
        assert newest_state(tmp_path) is not None

    def test_a_loss_that_is_not_finite_names_the_batch(self, data: Path, tmp_path: Path) -> None:
        trainer = Trainer(small(data, tmp_path))
        with torch.no_grad():
            next(iter(trainer.model.parameters())).fill_(torch.nan)
        with pytest.raises(UserError, match=r"step 0: stopped .*speaker"):
            trainer.fit()
        assert len(json.loads((tmp_path / "stopped.json").read_text())["clips"]) == 4

    def test_micro_batches_give_the_same_loss(self, data: Path, tmp_path: Path) -> None:
        whole = Trainer(small(data, tmp_path / "a", optimiser={"steps": 2})).fit()
        parts = Trainer(small(data, tmp_path / "b", optimiser={"steps": 2, "micro_batch": 1})).fit()
        assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)

    def test_the_baseline_trains(self, data: Path, tmp_path: Path) -> None:
        model = {"feature_dim": 16, "feedforward": 32, "standardise": True}
        content = {**small(data, tmp_path).to_dict(), "family": "dualtalk", "model": model}
        Trainer(config_from_dict(content)).fit()
        from timar_ros.baselines.dualtalk_checkpoint import load_dualtalk

        loaded = load_dualtalk(tmp_path / "model")
        assert loaded(torch.zeros(1, 16000), torch.zeros(1, 16000), torch.zeros(1, 25, 56)).shape == (1, 25, 56)

    def test_clip_seconds_must_be_whole_turns(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="whole number of turns"):
            Trainer(small(data, tmp_path, data={"clip_seconds": 1.5}))

    def test_clips_must_fit_the_models_window(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"clip_seconds 3.0 is longer than the model's window: 2.0 s"):
            Trainer(small(data, tmp_path, data={"clip_seconds": 3.0}))


def test_two_processes_are_one_with_twice_the_batch(data: Path, tmp_path: Path) -> None:
    """Under gloo, two processes with half a batch each: the same losses as one process with the whole batch."""
    alone = Trainer(small(data, tmp_path / "one")).fit()
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(small(data, tmp_path / "two").to_dict()))
    # `accelerate launch --cpu --num_processes 2` starts one process only (it leaves CPUs to MPI); torchrun starts two.
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "timar_ros.cli.main", "train", str(config),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    states = sorted((tmp_path / "two").glob("step-*/state.json"))
    assert json.loads(states[-1].read_text())["processes"] == 2
    rows = [line.split(",") for line in (tmp_path / "two/log.csv").read_text().splitlines()]
    losses = [float(value) for _, name, value in rows if name == "loss"]
    assert losses[-1] == pytest.approx(alone["loss"], rel=1e-4)


def test_processes_that_do_not_train_together_are_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs would write into one folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")  # and none of the variables by which processes find each other
    with pytest.raises(UserError, match="2 processes were started, but they do not train together"):
        Trainer(small(data, tmp_path))


class TestCommand:
    def test_trains_exports_and_does_not_begin_again(self, data: Path, tmp_path: Path) -> None:
        config = tmp_path / "run.yaml"
        config.write_text(yaml.safe_dump(small(data, tmp_path / "run", match_spread=True, calm_jaw=0.5).to_dict()))
        assert main(["train", str(config), "--steps", "2", "--export", str(tmp_path / "shipped")]) == 0
        shipped = load_timar(tmp_path / "shipped")
        assert shipped.trained
        assert (tmp_path / "shipped/training_log.csv").exists()
        again = ["train", str(config), "--steps", "2", "--resume"]
        assert main(again) == 2
        assert main([*again, "--export", str(tmp_path / "twice")]) == 0
        weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("shipped", "twice")]
        assert weights[0] == weights[1]

    def test_broken_conversations_are_refused_or_left_out(
        self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = tmp_path / "data"
        shutil.copytree(data, broken)
        exp = np.full((120, 50), np.nan, np.float32)
        np.savez(broken / "train/a_speaker1.npz", exp=exp, pose=np.zeros((120, 6), np.float32))
        config = tmp_path / "run.yaml"
        config.write_text(yaml.safe_dump(small(broken, tmp_path / "run").to_dict()))
        assert main(["train", str(config), "--steps", "1"]) == 2
        assert "a_speaker1.npz" in capsys.readouterr().err
        assert main(["train", str(config), "--steps", "1", "--skip-broken"]) == 0
        assert "left out 1 broken" in capsys.readouterr().err
