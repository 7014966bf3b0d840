"""Configurations, checkpoints, the speech encoders, the diffusion process and the training loss."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import CONFIG, SPEECH, random_turn, tiny_model, training_batch
from torch import nn

from timar_ros.errors import UserError
from timar_ros.model import Timar, TimarConfig, create_timar, load_timar, save_timar
from timar_ros.model.diffusion import ancestral_sample, make_schedule, training_alphas
from timar_ros.model.packing import (
    Int8Linear,
    PackedConvolutions,
    PackedSpeechEncoder,
    can_pack,
    is_packed,
    packed,
)
from timar_ros.model.precision import pick_device, pick_dtype
from timar_ros.model.speech_encoder import (
    LARGE_SPEECH,
    MINI_SPEECH,
    build_speech_encoder,
    encode,
    frame_window,
    speech_encoder_config,
)
from timar_ros.streaming import Conversation
from timar_ros.training.objective import Objective


def outputs(model: Timar) -> np.ndarray:
    turn = random_turn(1)
    return Conversation(model, seed=0, engine="oracle").step(turn.user_speech, turn.agent_speech, turn.user_motion)


# Configurations


def test_sizes_are_the_papers() -> None:
    with torch.device("meta"):
        large = Timar(TimarConfig.of_size("large"), nn.Identity())
    # 428 M in the paper's table, speech encoder left out.
    assert sum(p.numel() for p in large.parameters()) / 1e6 == pytest.approx(428, abs=4)
    assert TimarConfig.of_size("large") == TimarConfig()
    assert TimarConfig.of_size("base").encoder_width == 768
    assert TimarConfig.of_size("huge").encoder_depth == 20
    assert TimarConfig().turn_tokens == 110 and TimarConfig().context_turns == 8


def test_mini_fits_into_twenty_megabytes() -> None:
    model = create_timar(TimarConfig.of_size("mini"))
    assert 4 * sum(p.numel() for p in model.parameters()) < 20e6


def test_config_survives_json() -> None:
    for size in ("mini", "base", "large", "huge"):
        config = TimarConfig.of_size(size)
        assert TimarConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_heads": 5}, "5 attention heads do not divide"),
        ({"turn_seconds": 0.33}, "not a whole number"),
        ({"token_width": 25}, "must be even"),
        ({"motion_width": 55}, "56 columns"),
        ({"encoder_depth": 0}, "encoder_depth"),
        ({"sampling_steps": 0}, "sampling_steps"),
    ],
)
def test_impossible_configurations_say_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_unknown_configuration_names_are_refused() -> None:
    with pytest.raises(UserError, match="unknown entries blocks"):
        TimarConfig.from_dict({"blocks": 3})
    with pytest.raises(UserError, match="unknown model size 'giant'"):
        TimarConfig.of_size("giant")


def test_other_turn_lengths_work() -> None:
    config = dataclasses.replace(CONFIG, turn_seconds=0.48, context_seconds=1.44)
    model = create_timar(config, SPEECH, zero_head=False)
    pair = [Conversation(model, seed=0, engine=engine) for engine in ("oracle", "cached")]
    for seed in range(4):
        turn = random_turn(seed, config=config)
        first, second = (talk.step(turn.user_speech, turn.agent_speech, turn.user_motion) for talk in pair)
        assert first.shape == (12, 56)
        np.testing.assert_allclose(first, second, atol=1e-4)


# Checkpoints


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_folder_round_trip(tmp_path: Path, dtype: str | None) -> None:
    model = tiny_model(partial_motion=True, standardise=True)
    model.motion_mean[:] = 0.123456
    model.trained = True
    save_timar(model, tmp_path / "talker", dtype=dtype, steps=7)
    modes = {path.stat().st_mode for path in (tmp_path / "talker").iterdir()}
    assert len(modes) == 1, "weights are readable to whoever may read the configuration"
    back = load_timar(tmp_path / "talker")
    assert back.name == "talker" and back.trained and back.config == model.config
    assert json.loads((tmp_path / "talker" / "config.json").read_text())["steps"] == 7
    assert len(back.sha256) == 64
    assert torch.equal(back.motion_mean, model.motion_mean)  # never rounded
    np.testing.assert_allclose(outputs(back), outputs(model), atol=1e-6 if dtype is None else 0.1)
    assert sorted(path.name for path in (tmp_path / "talker").iterdir()) == ["config.json", "model.safetensors"]
    assert all(p.requires_grad for p in back.parameters())


def test_same_seed_same_weights() -> None:
    before = torch.random.get_rng_state()
    first, second, other = tiny_model(1), tiny_model(1), tiny_model(2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.sha256 == second.sha256 != other.sha256
    assert not first.trained and first.name == "untrained-1"


def test_zero_head_gives_calm_motion() -> None:
    motion = outputs(create_timar(CONFIG, SPEECH))
    assert np.abs(motion).max() < 0.1


def authors_file(tmp_path: Path, model: Timar, extra: object = None) -> Path:
    names = {
        "speech_snippet_embed_dim": 16, "token_embed_dim": 24, "encoder_embed_dim": 32, "encoder_depth": 2,
        "encoder_num_heads": 4, "decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4, "diffloss_d": 2,
        "diffloss_w": 32, "num_sampling_steps": "5", "lr": 1e-4, "output_dir": "runs",
    }  # fmt: skip
    weights = {key: value for key, value in model.state_dict().items() if not key.startswith("speech_encoder.")}
    wrong = {key: torch.zeros_like(value) for key, value in weights.items()}
    path = tmp_path / "checkpoint.pth"
    content = {"model": wrong, "model_ema": weights, "epoch": 3, "args": argparse.Namespace(**names), "extra": extra}
    torch.save(content, path)
    return path


def test_authors_checkpoint(tmp_path: Path) -> None:
    model = tiny_model()
    save_file(model.speech_encoder.state_dict(), tmp_path / "speech.safetensors")
    path = authors_file(tmp_path, model)
    back = load_timar(path, speech=(tmp_path / "speech.safetensors", SPEECH))
    assert back.config == model.config and back.trained
    np.testing.assert_allclose(outputs(back), outputs(model), atol=1e-6)


class Malicious:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(UserError, match=r"refused to load .*could run code"):
        load_timar(authors_file(tmp_path, tiny_model(), Malicious(trap)))
    assert not trap.exists()
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps({"model_ema": Malicious(trap)}))
    with pytest.raises(UserError):
        load_timar(plain)
    assert not trap.exists()


def test_errors_name_the_keys(tmp_path: Path) -> None:
    model = tiny_model()
    save_timar(model, tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    del state["z_proj.bias"]
    state["surprise"] = torch.zeros(1)
    state["mask_token"] = torch.zeros(1, 1, 7)
    save_file(state, path)
    with pytest.raises(UserError) as error:
        load_timar(tmp_path)
    text = str(error.value)
    assert "missing 1: z_proj.bias" in text and "unknown 1: surprise" in text
    assert "mask_token is [1, 1, 7] and should be [1, 1, 32]" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent", "no model at"),
        (lambda folder: folder, "has no config.json"),
        (lambda folder: _write(folder / "a.safetensors", b"junk"), "as safetensors"),
        (lambda folder: _write(folder / "a.pth", b"junk"), "a.pth"),
        (lambda folder: _write(folder / "a.txt", b""), "is no model"),
        (lambda folder: _write(folder / "config.json", b"{").parent, "cannot read"),
        (lambda folder: _write(folder / "config.json", b'{"format": "other"}').parent, "format 'other'"),
        (lambda folder: _write(folder / "config.json", b'{"format": "timar_ros 1"}').parent, "lacks name, trained"),
    ],
)
def test_bad_files_give_one_clear_line(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_timar(make(tmp_path))
    assert "\n" not in str(error.value)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_unknown_devices_and_types_are_refused() -> None:
    with pytest.raises(UserError, match="unknown device 'abacus'"):
        pick_device("abacus")
    with pytest.raises(UserError, match="unknown dtype 'int3'"):
        pick_dtype("int3", torch.device("cpu"))
    assert pick_dtype("auto", torch.device("cpu"), CONFIG) in (torch.float32, torch.bfloat16)
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(UserError, match="sees no CUDA"):
            pick_device("cuda")


# Packed copies


def test_packed_copy_computes_the_same_and_leaves_the_original_alone(tmp_path: Path) -> None:
    model = tiny_model()
    before, keys = outputs(model), list(model.state_dict())
    copy = packed(model)
    assert is_packed(copy) and not is_packed(model)
    np.testing.assert_allclose(outputs(copy), before, atol=1e-5)
    np.testing.assert_allclose(outputs(packed(copy)), before, atol=1e-5)
    assert list(model.state_dict()) == keys
    np.testing.assert_array_equal(outputs(model), before)
    with pytest.raises(UserError, match="packed"):
        save_timar(copy, tmp_path)
    save_timar(model, tmp_path)
    np.testing.assert_allclose(outputs(load_timar(tmp_path, inference=True)), before, atol=1e-5)


def test_int8_is_near_and_for_inference_alone(tmp_path: Path) -> None:
    model = tiny_model()
    save_timar(model, tmp_path)
    if not can_pack(torch.int8):
        with pytest.raises(UserError, match="oneDNN"):
            load_timar(tmp_path, dtype="int8")
        pytest.skip("needs oneDNN and a processor whose int8 products do not saturate (VNNI or AMX)")
    coarse = load_timar(tmp_path, dtype="int8")
    assert is_packed(coarse) and any(isinstance(each, Int8Linear) for each in coarse.encoder_blocks.modules())
    assert not any(isinstance(each, Int8Linear) for each in coarse.diffloss.modules())
    exact, near = outputs(model), outputs(coarse)
    assert 0 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 0.1


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("positions", [4, 64])
def test_packed_speech_encoders_of_all_kinds(family: str, norm: str, positions: int) -> None:
    config = {**SPEECH, "model_type": family, "feat_extract_norm": norm, "num_conv_pos_embeddings": positions}
    config["do_stable_layer_norm"] = norm == "layer"
    encoder = build_speech_encoder(config).eval()
    speech = torch.randn(2, 16000)
    with torch.inference_mode():
        torch.testing.assert_close(encode(packed(encoder), speech, 25), encode(encoder, speech, 25), atol=1e-4, rtol=0)


def test_the_released_encoders_transformer_is_packed_as_a_whole() -> None:
    encoder = build_speech_encoder({**LARGE_SPEECH, "num_hidden_layers": 2}).eval()
    if not can_pack(torch.float32):
        pytest.skip("needs oneDNN's packed products")
    copy: Any = packed(encoder)
    assert isinstance(copy.feature_extractor, PackedConvolutions)
    assert isinstance(copy.encoder, PackedSpeechEncoder) and len(copy.encoder.layers) == 2


def test_a_frame_that_hears_few_samples_is_computed_from_those_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
             "conv_dim": [8] * 7, "num_conv_pos_embedding_groups": 2}  # fmt: skip
    encoder = build_speech_encoder({**LARGE_SPEECH, **small}).eval()
    assert frame_window(encoder.config, 16000, 25) == (400, 640)
    assert frame_window(encoder.config, 16000, 24) is None  # frames between the encoder's
    assert frame_window(build_speech_encoder(MINI_SPEECH).config, 16000, 25) is None
    with torch.inference_mode():
        got = encode(encoder, speech := torch.randn(2, 16000), 25)
        monkeypatch.setattr("timar_ros.model.speech_encoder.frame_window", lambda *_: None)
        torch.testing.assert_close(got, encode(encoder, speech, 25), atol=1e-5, rtol=0)


# Speech encoders


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm"])
def test_speech_encoders_of_the_family(tmp_path: Path, family: str) -> None:
    speech = {**SPEECH, "model_type": family, "conv_bias": False}
    model = create_timar(CONFIG, speech, 0, zero_head=False)
    tokens = model.encode_speech(torch.randn(2, 16000))
    assert tokens.shape == (2, 25, 24)
    save_timar(model, tmp_path)
    np.testing.assert_allclose(outputs(load_timar(tmp_path)), outputs(model), atol=1e-5)
    again = build_speech_encoder(speech_encoder_config(model.speech_encoder))
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.speech_encoder.state_dict().items()
    }


def test_speech_from_a_transformers_folder(tmp_path: Path) -> None:
    model = tiny_model()
    model.speech_encoder.save_pretrained(tmp_path / "speech")
    model.speech_source = str(tmp_path / "speech")
    save_timar(model, tmp_path / "model")
    assert not any(key.startswith("speech_encoder.") for key in load_file(tmp_path / "model" / "model.safetensors"))
    back = load_timar(tmp_path / "model")
    assert back.speech_frozen and not back.train().speech_encoder.training
    np.testing.assert_allclose(outputs(back), outputs(model), atol=1e-6)


def test_a_relative_speech_folder_is_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    (tmp_path / "work" / "elsewhere").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    model.speech_encoder.save_pretrained("downloads/speech")
    model.speech_source = "downloads/speech"
    save_timar(model, "runs/mine")
    expected = outputs(load_timar("runs/mine"))
    for place, way in (
        ("elsewhere", "../runs/mine"),
        ("..", "work/runs/mine"),
        (".", str(Path("runs/mine").resolve())),
    ):
        monkeypatch.chdir(tmp_path / "work" / place)
        np.testing.assert_array_equal(outputs(load_timar(way)), expected)
    # Both folders moved together, and the model saved again from elsewhere.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").rename(tmp_path / "moved")
    again = load_timar("moved/runs/mine")
    save_timar(again, "other/copy")
    monkeypatch.chdir("moved")
    np.testing.assert_array_equal(outputs(load_timar("../other/copy")), expected)


def test_generate_takes_the_speech_encoder_of_an_authors_checkpoint(tmp_path: Path) -> None:
    """`--speech`: a transformers folder; without it the released model's encoder is looked for, and is not here."""
    from timar_ros.cli.main import main
    from timar_ros.data.audio_files import write_audio
    from timar_ros.data.motion_files import read_motion

    model = tiny_model()
    model.speech_encoder.save_pretrained(tmp_path / "speech")
    path = authors_file(tmp_path, model)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 32000)).astype(np.float32)
    for name, samples in zip(("user", "agent"), noise, strict=True):
        write_audio(tmp_path / f"{name}.wav", samples)
    files = ["--user", str(tmp_path / "user.wav"), "--agent", str(tmp_path / "agent.wav"), "--quiet"]
    command = ["generate", *files, "--model", str(path), "--speech", str(tmp_path / "speech")]
    assert main([*command, "--out", str(tmp_path / "a.npz")]) == 0
    save_timar(load_timar(path, speech=str(tmp_path / "speech")), tmp_path / "same")
    assert main(["generate", *files, "--model", str(tmp_path / "same"), "--out", str(tmp_path / "b.npz")]) == 0
    made = read_motion(tmp_path / "a.npz")
    np.testing.assert_array_equal(made, read_motion(tmp_path / "b.npz"))
    assert made.shape == (50, 56)
    assert np.abs(made).max() > 0.01
    assert main(["generate", *files, "--model", str(path), "--out", str(tmp_path / "c.npz")]) == 2


@pytest.mark.parametrize("seconds", [0.4, 2.0])
def test_surplus_rows_of_the_authors_position_tables_are_cut(tmp_path: Path, seconds: float) -> None:
    """The authors' tables have max_context_time x (tokens per turn) rows, whatever a turn's length is."""
    model = tiny_model(turn_seconds=seconds)
    save_timar(model, tmp_path / "model")
    expected = _turn_of(load_timar(tmp_path / "model"))
    state = load_file(tmp_path / "model" / "model.safetensors")
    tables = [key for key in state if key.endswith("_pos_embed_learned")]
    assert len(tables) >= 2
    for key in tables:
        more = torch.full((1, state[key].shape[1], state[key].shape[2]), 7.0)
        state[key] = torch.cat([state[key], more], dim=1).contiguous()
    save_file(state, tmp_path / "model" / "model.safetensors")
    np.testing.assert_array_equal(_turn_of(load_timar(tmp_path / "model")), expected)
    for key in tables:
        state[key] = state[key][:, :3].contiguous()
    save_file(state, tmp_path / "model" / "model.safetensors")
    with pytest.raises(UserError, match="misshapen"):
        load_timar(tmp_path / "model")


def _turn_of(model: Timar) -> np.ndarray:
    turn = random_turn(1, config=model.config)
    return Conversation(model, seed=0, engine="oracle").step(turn.user_speech, turn.agent_speech, turn.user_motion)


def test_old_names_of_weight_norm_are_understood(tmp_path: Path) -> None:
    model = tiny_model()
    save_timar(model, tmp_path)
    state = {}
    for key, value in model.speech_encoder.state_dict().items():
        key = key.replace("parametrizations.weight.original0", "weight_g")
        state["wav2vec2." + key.replace("parametrizations.weight.original1", "weight_v")] = value.contiguous()
    state["lm_head.weight"] = torch.zeros(3, 3)
    save_file(state, tmp_path / "old.safetensors")
    back = load_timar(tmp_path, speech=(tmp_path / "old.safetensors", SPEECH))
    np.testing.assert_allclose(outputs(back), outputs(model), atol=1e-6)


def test_speech_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model_type 'whisper' is not supported"):
        build_speech_encoder({"model_type": "whisper"})
    with pytest.raises(UserError, match="width 32 is not the model's speech_width 16"):
        create_timar(CONFIG, {**SPEECH, "hidden_size": 32})
    save_timar(tiny_model(), tmp_path)
    with pytest.raises(UserError, match="cannot load the speech encoder"):
        load_timar(tmp_path, speech=str(tmp_path / "nowhere"))


def test_chunks_are_encoded_by_themselves() -> None:
    encoder = build_speech_encoder(MINI_SPEECH).eval()
    speech = torch.randn(2, 16000)
    with torch.inference_mode():
        both, second = encode(encoder, speech, 25), encode(encoder, speech[1:], 25)
    assert torch.allclose(both[1:], second, atol=1e-5)


# The diffusion process, against an independent implementation


def test_sampler_equals_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers, an independent implementation")
    betas = 1 - training_alphas() / np.concatenate(([1.0], training_alphas()[:-1]))
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=1000, trained_betas=betas, variance_type="learned_range", prediction_type="sample",
        clip_sample=False,
    )  # fmt: skip
    count = 10
    steps = make_schedule(count).steps[::-1]
    scheduler.set_timesteps(timesteps=steps.tolist())
    generator = torch.Generator().manual_seed(0)
    initial, noise = torch.randn(4, 56, generator=generator), torch.randn(count, 4, 56, generator=generator)
    network = torch.randn(count, 4, 112, generator=generator)
    ours = ancestral_sample(lambda position, x: network[position] + 0.1 * x.repeat(1, 2), (initial, noise), 1.0, None)
    theirs = initial
    for position, step in enumerate(steps):
        out = network[position] + 0.1 * theirs.repeat(1, 2)
        theirs = _diffusers_mean(scheduler, out, int(step), theirs)
        if position < count - 1:
            theirs = theirs + _diffusers_deviation(scheduler, out[:, 56:], int(step)) * noise[position]
    torch.testing.assert_close(ours.frames, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.expected, (network[0] + 0.1 * initial.repeat(1, 2))[:, :56])


def _diffusers_mean(scheduler: Any, out: torch.Tensor, step: int, x: torch.Tensor) -> torch.Tensor:
    """The scheduler's own step with its noise taken out again."""
    generator = torch.Generator().manual_seed(1)
    stepped = scheduler.step(out, step, x, generator=generator).prev_sample
    if step == 0:
        return stepped
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return stepped - _diffusers_deviation(scheduler, out[:, 56:], step) * drawn


def _diffusers_deviation(scheduler: Any, fraction: torch.Tensor, step: int) -> torch.Tensor:
    return torch.exp(0.5 * scheduler._get_variance(step, predicted_variance=fraction))


def test_last_added_noise_is_never_used() -> None:
    model = tiny_model()
    z = torch.randn(3, 32)
    initial, noise = torch.randn(3, 56), torch.randn(5, 3, 56)
    other = noise.clone()
    other[-1] += 100
    with torch.inference_mode():
        first, second = (model.diffloss.sample(z, (initial, added)).frames for added in (noise, other))
    assert torch.equal(first, second)


def test_schedule_limits() -> None:
    assert make_schedule(5).steps.tolist() == [0, 250, 500, 749, 999]
    with pytest.raises(ValueError, match="1 diffusion steps"):
        make_schedule(1)


# Training


def clips(frames: int = 50, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    speech = torch.randn(2, batch, frames * 640, generator=generator)
    motion = torch.randn(2, batch, frames, 56, generator=generator)
    return [speech[0], speech[1], motion[0], motion[1]]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("variant", [{}, {"diffusion": False}, {"encoder_only": False}, {"causal": False}])
def test_training_step_reaches_every_weight(variant: dict[str, Any], frozen: bool) -> None:
    model = tiny_model(**variant).train()
    if frozen:
        model.speech_encoder.requires_grad_(False)
    drawn = torch.rand(3, 2, 50, generator=torch.Generator().manual_seed(2))
    mask = drawn[0].argsort(1) < 40
    drops = {"user_speech_drop": drawn[1] < 0.3, "user_motion_drop": drawn[2] < 0.3}
    loss, _, count = Objective(model)(training_batch(*clips(), agent_mask=mask, **drops))
    loss.backward()
    silent = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == set()
    assert count == 80
    assert torch.isfinite(loss)


def test_the_loss_comes_from_the_batch_alone() -> None:
    model = tiny_model(dropout=0.0, attention_dropout=0.0).train()
    model.speech_encoder.eval()
    batch = training_batch(*clips())
    other = training_batch(*clips(), noise=torch.randn(1, 2, 50, 56))
    losses = [float(Objective(model)(each)[0].detach()) for each in (batch, batch, other)]
    assert losses[0] == losses[1] != losses[2]


def test_a_dropped_token_is_not_seen() -> None:
    model = tiny_model()
    user, agent, seen, target = clips()
    drops = {name: torch.ones(2, 50, dtype=torch.bool) for name in ("user_speech_drop", "user_motion_drop")}
    with torch.inference_mode():
        losses = [
            float(Objective(model)(training_batch(speech, agent, motion, target, **dropped))[0])
            for speech, motion, dropped in ((user, seen, drops), (user + 1, seen - 1, drops), (user, seen, {}))
        ]
    assert losses[0] == losses[1] != losses[2]


def test_training_survives_lost_tracking() -> None:
    model = tiny_model(partial_motion=True).train()
    user, agent, seen, target = clips()
    seen[0, :10] = torch.nan
    seen[1, 5:20, :50] = torch.nan
    loss, _, _ = Objective(model)(training_batch(user, agent, seen, target))
    loss.backward()
    assert torch.isfinite(loss)
    assert model.untracked_motion.grad is not None and model.untracked_motion.grad.abs().sum() > 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
