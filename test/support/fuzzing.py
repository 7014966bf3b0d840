"""Damaged inputs for every reader: files made here, edits that damage them, and what a reader may do with the result.

A reader gives a result or raises UserError of one line. Anything else is a fault: another exception, a MemoryError that
was turned into a UserError (the file's size did not ask for that memory), an error of several lines.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import random
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.errors import UserError
from timar_ros.streaming.message_checks import MessageError

Edit = tuple[int, float, int]
"""Which operation, where in the data (0 to 1), and a number that it uses."""

BYTES = (0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x28)
WORDS = (0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
TOKENS = (
    "", "-1", "0", "1e400", "-1e400", "nan", ".nan", ".inf", "1e-320", "999999999999999999999", "null", "true", "[]",
    "{}", "'", '"', "[" * 3000, "{a: " * 2000, "&a [*a]", "!!python/object/apply:os.system [true]", "2026-99-99",
    "2026-13-45 25:61:61", "0x", "1:2:3:4", "é", "\u2028", "\x00", "\\ud800", "- ", ": ", "<<: *b", "<", "&amp;&x;",
    "../../../../etc/passwd", "/dev/zero", "1" * 5000, "-0", "1_0", "~", "y" * 300, "0o17", "=", "? [a]",
)  # fmt: skip


def damaged(data: bytes, edits: list[Edit], *, text: bool = False) -> bytes:
    """The data after all edits, one after the other."""
    for operation, place, number in edits:
        kinds = _TEXT if text else _BINARY
        data = kinds[operation % len(kinds)](data, place, number)
    return data


def _at(data: bytes, place: float, room: int = 1) -> int:
    return min(int(place * len(data)), max(0, len(data) - room))


def _flip(data: bytes, place: float, number: int) -> bytes:
    at = _at(data, place)
    return data[:at] + bytes(byte ^ (1 << number % 8) for byte in data[at : at + 1]) + data[at + 1 :]


def _byte(data: bytes, place: float, number: int) -> bytes:
    at = _at(data, place)
    return data[:at] + bytes([BYTES[number % len(BYTES)]]) + data[at + 1 :]


def _word(data: bytes, place: float, number: int) -> bytes:
    form = "<" + "HIQ"[number % 3]
    size = struct.calcsize(form)
    at = _at(data, place, size)
    value = WORDS[(number // 3) % len(WORDS)] % (1 << 8 * size)
    return data[:at] + struct.pack(form, value) + data[at + size :]


def _head_word(data: bytes, place: float, number: int) -> bytes:
    """Headers stand at the beginning and are a small part of a file."""
    return _word(data, min(1.0, 120.0 * place / max(1, len(data))), number)


def _cut(data: bytes, place: float, _number: int) -> bytes:
    return data[: _at(data, place)]


def _remove(data: bytes, place: float, number: int) -> bytes:
    at = _at(data, place)
    return data[:at] + data[at + 1 + number % 64 :]


def _twice(data: bytes, place: float, number: int) -> bytes:
    at = _at(data, place)
    return data[:at] + data[at : at + 1 + number % 256] + data[at:]


def _zeros(data: bytes, place: float, number: int) -> bytes:
    at, count = _at(data, place), 1 + number % 64
    return data[:at] + bytes(count) + data[at + count :]


_BINARY = (_flip, _byte, _word, _head_word, _cut, _remove, _twice, _zeros)


def _token(data: bytes, place: float, number: int) -> bytes:
    """Another value for one word or number."""
    words = list(re.finditer(rb"[\w.+-]+", data))
    token = TOKENS[number % len(TOKENS)].encode()
    if not words:
        return data + token
    word = words[_at(b" " * len(words), place)]
    return data[: word.start()] + token + data[word.end() :]


def _line(data: bytes, place: float, number: int) -> bytes:
    """A line is lost, doubled, indented, or stands elsewhere."""
    lines = data.split(b"\n")
    at = _at(b" " * len(lines), place)
    line = lines[at]
    what = number % 4
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(at, line)
    elif what == 2:
        lines[at] = b"  " + line
    else:
        lines.insert((number // 4) % len(lines), lines.pop(at))
    return b"\n".join(lines)


def _insert(data: bytes, place: float, number: int) -> bytes:
    at = _at(data, place)
    return data[:at] + TOKENS[number % len(TOKENS)].encode() + data[at:]


_TEXT = (_token, _token, _token, _line, _line, _insert, _flip, _byte, _cut, _remove)
OPERATIONS = max(len(_BINARY), len(_TEXT))


@dataclass(frozen=True)
class Target:
    """A reader: its undamaged inputs, and what is done with a damaged one."""

    seeds: list[bytes]
    read: Callable[[bytes, list[Edit], Path], object]
    """(seed, edits, empty folder): damages the seed, puts it where it belongs, and reads it."""


def fault_of(call: Callable[[], object]) -> str | None:
    """None for a result or a UserError as it should be, else what is wrong."""
    try:
        call()
    except (UserError, MessageError) as error:
        if "\n" in str(error):
            return f"an error of several lines: {str(error)[:200]!r}"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return f"it asks for too much memory: {str(error)[:200]}"
            cause = cause.__cause__ or cause.__context__
        return None
    except Exception as error:
        where = error.__traceback__
        place = ""
        while where is not None:
            file = where.tb_frame.f_code.co_filename
            if "timar_ros" in file and "fuzzing" not in file:
                place = f"{Path(file).name}:{where.tb_lineno}"
            where = where.tb_next
        return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:200]}"
    return None


def random_edits(source: random.Random) -> list[Edit]:
    """One to six edits."""
    return [
        (source.randrange(OPERATIONS), source.random(), source.getrandbits(32)) for _ in range(source.randint(1, 6))
    ]


def hostile_number(source: random.Random) -> float:
    """A number as no sender should send it."""
    return source.choice([0.0, -0.0, 1.0, -1.0, 1e300, -1e300, 1e-320, float("nan"), float("inf"), 2.0**63, 0.3])


# Readers of one file --------------------------------------------------------------------------------------------------


def _file(name: str, read: Callable[[Path], object], *, text: bool = False) -> Callable[..., object]:
    def damage_and_read(seed: bytes, edits: list[Edit], folder: Path) -> object:
        path = folder / name
        path.write_bytes(damaged(seed, edits, text=text))
        return read(path)

    return damage_and_read


def _sound(form: str, subtype: str | None, channels: int, rate: int = 16000) -> bytes:
    import soundfile

    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (800, channels))
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, subtype=subtype)
    return out.getvalue()


def _audio(name: str, seeds: list[bytes]) -> Target:
    from timar_ros.data.audio_files import load_audio, load_conversation

    def read(path: Path) -> object:
        load_audio(path)
        return load_conversation(path)

    return Target(seeds, _file(name, read))


def _wav() -> Target:
    return _audio(
        "f.wav",
        [
            _sound("WAV", "PCM_16", 1),
            _sound("WAV", "FLOAT", 2, 44100),
            _sound("WAVEX", "PCM_24", 2),
            _sound("RF64", "PCM_16", 1),
        ],
    )


def _flac() -> Target:
    return _audio("f.flac", [_sound("FLAC", "PCM_16", 1), _sound("FLAC", "PCM_24", 2, 48000)])


def _ogg() -> Target:
    return _audio("f.ogg", [_sound("OGG", "VORBIS", 1), _sound("OGG", "OPUS", 2, 48000)])


def _npz_bytes(packed: bool) -> bytes:
    out, rng = io.BytesIO(), np.random.default_rng(0)
    save = np.savez_compressed if packed else np.savez
    arrays: dict[str, Any] = {"exp": rng.normal(0, 0.3, (8, 50)), "pose": rng.normal(0, 0.02, (8, 6)), "rate": 25.0}
    save(out, **arrays)
    return out.getvalue()


def _npz() -> Target:
    from timar_ros.data.motion_files import load_motion

    return Target([_npz_bytes(False), _npz_bytes(True)], _file("f.npz", load_motion))


def _npz_members() -> Target:
    """The arrays within an archive whose checksums are right."""
    from timar_ros.data.motion_files import load_motion

    def read(seed: bytes, edits: list[Edit], folder: Path) -> object:
        with zipfile.ZipFile(io.BytesIO(seed)) as archive, zipfile.ZipFile(folder / "f.npz", "w") as out:
            for number, name in enumerate(archive.namelist()):
                data = archive.read(name)
                mine = [edit for index, edit in enumerate(edits) if (edit[2] + index) % 3 == number]
                head = damaged(data[:128], mine, text=bool(mine) and mine[0][2] % 2 == 0)
                out.writestr(name, head + data[128:])
        return load_motion(folder / "f.npz")

    return Target([_npz_bytes(False)], read)


def _npy() -> Target:
    from timar_ros.data.motion_files import load_motion

    out = io.BytesIO()
    np.save(out, np.random.default_rng(0).normal(0, 0.02, (8, 56)))
    return Target([out.getvalue()], _file("f.npy", load_motion))


def _state() -> Target:
    """The conversation that timar_inference keeps."""
    from timar_ros.node_parts.inference_stream import Stream

    out = io.BytesIO()
    np.savez(out, turn=np.array(3), memory=np.zeros((4, 8), np.float32))

    def read(path: Path) -> object:
        return Stream(0, None, None, path).saved()

    return Target([out.getvalue()], _file("f.npz", read))


# Bags -----------------------------------------------------------------------------------------------------------------


def _bag_folder(folder: Path, storage: str) -> Path:
    from support.bag_factory import write_bag
    from timar_ros.bags.bag_files import BagReader, BagWriter

    made = folder / "made"
    write_bag(made, seconds=1.0, chunk=0.1)
    if storage == "mcap":
        return made
    with BagReader(made) as reader, BagWriter(folder / "sqlite", storage="sqlite3") as writer:
        for name, topic in reader.topics.items():
            writer.add_topic(name, topic.msgtype)
        for name, stamp, message in reader.messages(set(reader.topics)):
            writer.write(name, stamp, message)
    return folder / "sqlite"


def _read_bag(path: Path) -> object:
    from timar_ros.bags.bag_files import BagReader
    from timar_ros.bags.recording import load_recording
    from timar_ros.bags.replay import recorded_run

    with BagReader(path) as reader:
        fault = fault_of(lambda: recorded_run(reader))
    if fault:
        raise RuntimeError(fault)
    return load_recording(path)


def _mcap() -> Target:
    with tempfile.TemporaryDirectory() as folder:
        (data,) = (path.read_bytes() for path in _bag_folder(Path(folder), "mcap").glob("*.mcap"))
    return Target([data], _file("f.mcap", _read_bag))


def _sqlite() -> Target:
    with tempfile.TemporaryDirectory() as folder:
        (data,) = (path.read_bytes() for path in _bag_folder(Path(folder), "sqlite3").glob("*.db3"))
    return Target([data], _file("f.db3", _read_bag))


def _metadata() -> Target:
    """A bag's metadata.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        made = _bag_folder(Path(folder), "mcap")
        (data,) = (path.read_bytes() for path in made.glob("*.mcap"))
        metadata = (made / "metadata.yaml").read_bytes()

    def read(seed: bytes, edits: list[Edit], folder: Path) -> object:
        (folder / "made.mcap").write_bytes(data)
        (folder / "metadata.yaml").write_bytes(damaged(seed, edits, text=True))
        return _read_bag(folder)

    return Target([metadata], read)


def _bag_messages() -> Target:
    """Messages within a bag whose index and checksums are right."""
    from timar_ros.bags.bag_files import BagReader, BagWriter

    with tempfile.TemporaryDirectory() as folder, BagReader(_bag_folder(Path(folder), "mcap")) as reader:
        topics = {name: topic.msgtype for name, topic in reader.topics.items()}
        raw = [
            (connection.topic, stamp, bytes(data))
            for connection, stamp, data in reader._reader.messages(reader._reader.connections)
        ]

    def read(_seed: bytes, edits: list[Edit], folder: Path) -> object:
        with BagWriter(folder / "bag") as writer:
            for name, kind in topics.items():
                writer.add_topic(name, kind)
            hurt: dict[int, list[Edit]] = {}
            for edit in edits:
                hurt.setdefault(edit[2] % len(raw), []).append(edit)
            for index, (name, stamp, data) in enumerate(raw):
                writer.write_raw(name, stamp, damaged(data, hurt[index]) if index in hurt else data)
        return _read_bag(folder / "bag")

    return Target([b""], read)


# Descriptions ---------------------------------------------------------------------------------------------------------


def _urdf() -> Target:
    from support.robot_chains import CHAINS
    from timar_ros.retarget.profile import load_profile
    from timar_ros.retarget.urdf import new_profile, read_chain
    from timar_ros.simulation.robot_shape import read_shape

    profile = load_profile("timar_head")

    def read(path: Path) -> object:
        data = path.read_bytes()
        faults = [
            fault_of(lambda: new_profile(data, "f", list(read_chain(data))[:3])),
            fault_of(lambda: read_shape(data.decode("utf-8", "replace"), profile, path.parent)),
        ]
        for fault in faults:
            if fault:
                raise RuntimeError(fault)
        return None

    seeds = [chain.urdf().encode() for chain in list(CHAINS.values())[:3]]
    neck = "".join(
        f'<joint name="{name}" type="revolute"><parent link="{parent}"/><child link="{child}"/><axis xyz="{axis}"/>'
        '<origin xyz="0 0 0.1" rpy="0 0 0"/><limit lower="-1" upper="1" velocity="2" effort="1"/></joint>\n'
        f'<link name="{child}"><visual><geometry><box size="0.1 0.1 0.1"/></geometry><material name="m">'
        '<color rgba="1 0 0 1"/></material></visual></link>\n'
        for name, parent, child, axis in (
            ("neck_yaw", "base", "a", "0 0 1"), ("neck_pitch", "a", "b", "0 1 0"), ("neck_roll", "b", "c", "1 0 0"),
            ("jaw", "c", "d", "0 1 0"),
        )
    )  # fmt: skip
    seeds.append(f'<?xml version="1.0"?>\n<robot name="r">\n<link name="base"/>\n{neck}</robot>\n'.encode())
    return Target(seeds, _file("f.urdf", read, text=True))


def _yaml(name: str, read: Callable[[Path], object], seeds: list[Path]) -> Target:
    return Target([path.read_bytes() for path in seeds], _file(name, read, text=True))


def _profiles() -> Target:
    from timar_ros.resources import share
    from timar_ros.retarget.profile import load_profile

    def read(path: Path) -> object:
        return load_profile(path)

    return _yaml("f.yaml", read, sorted(share("config", "robots").glob("*.yaml")))


def _training() -> Target:
    from timar_ros.resources import share
    from timar_ros.training.run_config import load_config

    return _yaml("f.yaml", load_config, sorted(share("config", "train").glob("*.yaml")))


def _avatar() -> Target:
    from timar_ros.resources import share
    from timar_ros.retarget.avatar import AvatarMap

    return _yaml("f.yaml", AvatarMap, [share("config", "avatar.yaml")])


MAPPING = b"""user_audio: {topic: /mic/audio, channels: 2, sample_rate: 16000, encoding: S16LE}
agent_audio: /tts
user_motion: {frame: face_1, reference_frame: base_link, optical: true, neutral: [0.0, 0.1, 0.0]}
"""


def _mapping() -> Target:
    """Which topics of a foreign bag are what, together with a bag."""
    from timar_ros.bags.bag_files import BagReader
    from timar_ros.bags.bag_foreign import Inputs, read_mapping

    folder = Path(tempfile.mkdtemp(prefix="timar_ros-fuzz-"))
    bag = _bag_folder(folder, "mcap")
    real = b"user_audio: /user/audio\nagent_audio: {topic: /agent/audio}\nuser_motion: {topic: /user/motion}\n"

    def read(path: Path) -> object:
        mapping = read_mapping(path)
        with BagReader(bag) as reader:
            return Inputs(reader, mapping)

    return Target([MAPPING, real], _file("f.yaml", read, text=True))


def _recording_qos() -> Target:
    from timar_ros.nodes.recorder import _read_profiles
    from timar_ros.resources import share

    return _yaml("f.yaml", lambda path: _read_profiles(str(path)), [share("config", "recording_qos.yaml")])


def _page_commands() -> Target:
    from timar_ros.live.page_commands import read_command

    seeds = [
        b'{"do": "style", "name": "guidance", "value": 1.5}', b'{"do": "reset"}',
        b'{"do": "microphone", "on": true, "role": "user", "rate": 48000}',
    ]  # fmt: skip

    def read(seed: bytes, edits: list[Edit], _folder: Path) -> object:
        return read_command(damaged(seed, edits, text=True).decode("utf-8", "replace"))

    return Target(seeds, read)


# Models ---------------------------------------------------------------------------------------------------------------


def _model_files() -> dict[str, bytes]:
    from support.tiny_models import tiny_model
    from timar_ros.model import save_timar

    with tempfile.TemporaryDirectory() as folder:
        save_timar(tiny_model(0), Path(folder, "m"), name="tiny")
        return {path.name: path.read_bytes() for path in Path(folder, "m").iterdir() if path.is_file()}


def _model_folder(part: str) -> Target:
    from timar_ros.model import load_timar

    files = _model_files()

    def read(seed: bytes, edits: list[Edit], folder: Path) -> object:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        if part == "config":
            (folder / "config.json").write_bytes(damaged(seed, edits, text=True))
        elif part == "weights":
            (folder / "model.safetensors").write_bytes(damaged(seed, edits))
        else:
            length = struct.unpack_from("<Q", seed)[0]
            head = damaged(seed[8 : 8 + length], edits, text=True)
            (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + seed[8 + length :])
        return load_timar(folder)

    return Target([files["config.json" if part == "config" else "model.safetensors"]], read)


def _authors() -> tuple[bytes, Callable[[Path], object]]:
    """A checkpoint as the authors' training leaves it, and how it is read."""
    import torch
    from safetensors.torch import save_file

    from support.tiny_models import SPEECH, tiny_model
    from timar_ros.model import load_timar

    folder = Path(tempfile.mkdtemp(prefix="timar_ros-fuzz-"))
    model = tiny_model(0)
    save_file(model.speech_encoder.state_dict(), folder / "speech.safetensors")
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("speech_encoder.")}
    args = {
        "speech_snippet_embed_dim": 16, "token_embed_dim": 24, "encoder_embed_dim": 32, "encoder_depth": 2,
        "encoder_num_heads": 4, "decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4, "diffloss_d": 2,
        "diffloss_w": 32, "num_sampling_steps": "5", "lr": 1e-4, "output_dir": "runs",
    }  # fmt: skip
    torch.save({"model_ema": state, "args": argparse.Namespace(**args)}, folder / "a.pth")
    speech = (folder / "speech.safetensors", SPEECH)
    return (folder / "a.pth").read_bytes(), lambda path: load_timar(path, speech=speech)


def _checkpoint() -> Target:
    seed, load = _authors()
    return Target([seed], _file("f.pth", load))


def _checkpoint_pickle() -> Target:
    """The pickle within an archive whose checksums are right."""
    seed, load = _authors()

    def read(data: bytes, edits: list[Edit], folder: Path) -> object:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(folder / "f.pth", "w") as out:
            for name in archive.namelist():
                part = archive.read(name)
                out.writestr(name, damaged(part, edits) if name.endswith("data.pkl") else part)
        return load(folder / "f.pth")

    return Target([seed], read)


def _predictions() -> Target:
    """A tensor of another model's motion (.pt)."""
    import torch

    from timar_ros.data.other_models import read_tensor, to_frames

    out = io.BytesIO()
    torch.save(torch.zeros(6, 56), out)
    return Target([out.getvalue()], _file("f.pt", lambda path: to_frames(read_tensor(path))))


# Messages -------------------------------------------------------------------------------------------------------------


def _messages() -> Target:
    """Every field of every message that a node takes."""
    from support.message_values import fill, leaves
    from timar_ros.ros import messages
    from timar_ros.streaming.message_checks import FIELDS, check_fields

    decode = {"AudioChunk": messages.audio, "FlameMotion": messages.motion, "Turn": messages.turn}
    kinds = {}
    for name in FIELDS:
        package, kind, stem = name.split("/")
        try:
            made = getattr(importlib.import_module(f"{package}.{kind}"), stem)
        except (ImportError, AttributeError):
            continue  # types of packages that are not installed
        kinds[name] = made.Request if kind == "srv" else made
    fields = {name: leaves(kind()) for name, kind in kinds.items()}

    def read(seed: bytes, edits: list[Edit], _folder: Path) -> object:
        source = random.Random(seed + repr(edits).encode())
        name = source.choice(sorted(kinds))
        message = kinds[name]()
        for path, kind in fields[name].items():
            if source.random() < 0.5:
                _put(message, path, kind, source, fill)
        check_fields(message, name)
        stem = name.rpartition("/")[2]
        return decode[stem](message) if stem in decode else None

    return Target([b""], read)


def _put(message: Any, path: str, kind: str, source: random.Random, fill: Callable[..., None]) -> None:
    """A hostile value that fits the field's type."""
    from support.message_values import value_at

    holder, _, field = path.rpartition(".")
    owner = value_at(message, holder) if holder else message
    if kind == "string":
        setattr(owner, field, source.choice(["", "x" * 100_000, "a\nb", "\x00", "é", "reactive"]))
    elif kind in ("boolean", "bool"):
        setattr(owner, field, source.random() < 0.5)
    elif kind.startswith(("float", "double")) and "[" not in kind:
        number = hostile_number(source)
        setattr(
            owner, field, number if abs(number) < 3e38 or not kind.startswith("float") or number != number else 1e38
        )
    elif re.fullmatch(r"u?int\d+", kind):
        bits = int(kind.lstrip("uint"))
        low, high = (0, (1 << bits) - 1) if kind.startswith("u") else (-(1 << bits - 1), (1 << bits - 1) - 1)
        setattr(owner, field, source.choice([low, high, 0, 1, min(high, 16000)]))
    elif "float" in kind or "double" in kind:
        number = hostile_number(source)
        fill(message, path, number if abs(number) < 3e38 or number != number else 1e38)


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "messages": (_messages, 4),
    "wav": (_wav, 4),
    "flac": (_flac, 3),
    "ogg": (_ogg, 3),
    "npz": (_npz, 3),
    "npz members": (_npz_members, 3),
    "npy": (_npy, 2),
    "conversation state": (_state, 2),
    "mcap": (_mcap, 4),
    "sqlite": (_sqlite, 4),
    "bag metadata": (_metadata, 2),
    "bag messages": (_bag_messages, 3),
    "urdf": (_urdf, 4),
    "robot profiles": (_profiles, 4),
    "training configuration": (_training, 2),
    "avatar map": (_avatar, 1),
    "topic mapping": (_mapping, 2),
    "recording qos": (_recording_qos, 1),
    "page commands": (_page_commands, 2),
    "model config.json": (lambda: _model_folder("config"), 3),
    "model weights": (lambda: _model_folder("weights"), 2),
    "safetensors header": (lambda: _model_folder("header"), 2),
    "checkpoint": (_checkpoint, 2),
    "checkpoint pickle": (_checkpoint_pickle, 3),
    "predictions": (_predictions, 2),
}
"""How each is made, and its share of the inputs."""


def one_input(target: Target, edits: list[Edit], seed: int) -> str | None:
    """Damage one seed and read it in a folder of its own; what is wrong, or None."""
    with tempfile.TemporaryDirectory(prefix="timar_ros-fuzz-") as folder:
        data = target.seeds[seed % len(target.seeds)]
        return fault_of(lambda: target.read(data, edits, Path(folder)))


def to_json(name: str, seed: int, edits: list[Edit]) -> str:
    """What makes an input again."""
    return json.dumps({"target": name, "seed": seed, "edits": edits})
