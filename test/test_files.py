"""What files are, what readers say of bad ones, and where commands may write."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from timar_ros.cli.main import main
from timar_ros.data.audio_files import load_audio, write_audio
from timar_ros.data.data_check import check_folder
from timar_ros.data.motion_files import load_motion, write_motion
from timar_ros.errors import UserError
from timar_ros.files.reading import check_arrays, sniff

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1234\n"
PAGE = b"<!DOCTYPE html>\n<html><body>Log in</body></html>"


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    write_audio(tmp_path / "voice.wav", 0.1 * np.sin(0.05 * np.arange(16000)).astype(np.float32))
    return tmp_path / "voice.wav"


def motion(path: Path, frames: int = 50, **more) -> Path:
    rng = np.random.default_rng(0)
    arrays = {"exp": rng.normal(0, 0.3, (frames, 50)), "pose": rng.normal(0, 0.02, (frames, 6))}
    np.savez(path, **(arrays | more))
    return path


@pytest.mark.parametrize(
    ("contents", "what"),
    [(LFS, "Git LFS pointer"), (PAGE, "web page"), (b"", "empty"), (bytes(500), "nothing but zeros")],
)
@pytest.mark.parametrize("name", ["f.npz", "f.wav", "f.pth", "f.safetensors", "f.urdf", "f.mcap"])
def test_a_placeholder_is_called_what_it_is(tmp_path, capsys, voice, name, contents, what):
    file = tmp_path / name
    file.write_bytes(contents)
    command = {
        ".npz": ["retarget", "--motion", str(file), "--robot", "nao", "--out", str(tmp_path / "o.csv")],
        ".wav": ["generate", "--user", str(file), "--out", str(tmp_path / "o.npz")],
        ".urdf": ["robots", "new", str(file), "--neck", "a", "--out", str(tmp_path / "o.yaml")],
        ".mcap": ["report", str(file), "--out", str(tmp_path / "o.html")],
    }.get(file.suffix, ["generate", "--user", str(voice), "--model", str(file), "--out", str(tmp_path / "o.npz")])
    assert main(command) == 2
    error = capsys.readouterr().err.strip()
    assert what in error and "\n" not in error and "unsafe" not in error


def test_headerless_sound_is_told_how_to_get_a_header(tmp_path):
    (tmp_path / "mic.raw").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(UserError, match=r"no header.*ffmpeg"):
        load_audio(tmp_path / "mic.raw")


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_a_streamed_wav_is_read_to_its_end(voice, length):
    data = bytearray(voice.read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, length)
    whole = load_audio(voice)[0]
    voice.write_bytes(data)
    assert np.array_equal(load_audio(voice)[0], whole)


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    samples = (0.1 * np.sin(0.05 * np.arange(9000))).astype(np.float32)
    write_audio(tmp_path / "a.flac", samples)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    assert np.allclose(load_audio(tmp_path / "a.flac")[0], samples, atol=1e-4)


def test_scalars_may_be_arrays_of_one_element(tmp_path):
    assert load_motion(motion(tmp_path / "a.npz", rate=np.array([30.0])))[1] == 30.0
    with pytest.raises(UserError, match="rate"):
        load_motion(motion(tmp_path / "b.npz", rate=np.array([30.0, 1.0])))


def test_a_packing_that_python_lacks_is_said_to_be_so(tmp_path):
    data = bytearray(motion(tmp_path / "a.npz").read_bytes())
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        begin = -1
        while (begin := data.find(mark, begin + 1)) >= 0:
            struct.pack_into("<H", data, begin + at, 9)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UserError, match="compression method"):
        load_motion(tmp_path / "a.npz")


def test_sizes_are_checked_before_anything_is_allocated(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 56)})
    (tmp_path / "giant.npy").write_bytes(header.getvalue() + bytes(100))
    with pytest.raises(UserError, match="more than"):
        load_motion(tmp_path / "giant.npy")
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("exp.npy", "w") as part,
    ):
        for _ in range(1100):
            part.write(bytes(1 << 20))
    assert (tmp_path / "bomb.npz").stat().st_size < 2_000_000
    with pytest.raises(ValueError, match="unpacked"):
        check_arrays(tmp_path / "bomb.npz")


@pytest.mark.parametrize("scale", [57.3, 20.0])
def test_motion_in_degrees_is_refused(tmp_path, scale):
    pose = np.zeros((50, 6))
    pose[:, 1] = np.linspace(0, 0.6, 50) * scale
    with pytest.raises(UserError, match="degrees"):
        load_motion(motion(tmp_path / "a.npz", pose=pose))


def test_motion_without_a_tracked_frame_is_refused(tmp_path):
    with pytest.raises(UserError, match="NaN"):
        load_motion(motion(tmp_path / "a.npz", exp=np.full((50, 50), np.nan), pose=np.full((50, 6), np.nan)))


def test_data_check_finds_bit_rot_and_degrees(tmp_path):
    for speaker in (1, 2):
        rng = np.random.default_rng(speaker)
        write_audio(tmp_path / f"c_speaker{speaker}.wav", rng.uniform(-0.3, 0.3, 32000).astype(np.float32))
        motion(tmp_path / f"c_speaker{speaker}.npz")
    assert not check_folder(tmp_path).faults
    file = tmp_path / "c_speaker1.npz"
    data = bytearray(file.read_bytes())
    data[1000] ^= 0x01  # the lowest bit of a number
    file.write_bytes(data)
    motion(tmp_path / "c_speaker2.npz", pose=np.full((50, 6), 20.0) * np.linspace(0, 1, 50)[:, None])
    faults = [fault.what for fault in check_folder(tmp_path).faults]
    assert len(faults) == 2 and "checksum" in faults[0] and "degrees" in faults[1]


def test_no_command_writes_over_what_it_read(tmp_path, voice, capsys):
    moved = motion(tmp_path / "o.npz")
    linked = tmp_path / "linked.npz"
    linked.symlink_to(moved)
    data = tmp_path / "data"
    data.mkdir()
    (data / "u.npz").write_bytes(moved.read_bytes())
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    for command in (
        ["retarget", "--motion", moved, "--robot", "nao", "--out", moved],
        ["retarget", "--motion", moved, "--robot", "nao", "--out", voice],
        ["generate", "--user", voice, "--user-motion", moved, "--out", moved],
        ["generate", "--user", voice, "--user-motion", linked, "--out", moved],
        ["report", moved, "--out", voice],
        ["report", moved, "--out", moved],
        ["report", data, "--out", data / "u.npz"],
        ["evaluate", "--data", data, "--model", "timar-mini", "--json", voice],
        ["evaluate", "--data", data, "--model", "timar-mini", "--markdown", moved],
        ["robots", "check", "nao", "--plot", voice],
        ["data", "stats", data, "--json", moved],
        ["replay", data, "--out", voice],
        ["generate", "--user", voice, "--out", tmp_path],
        ["generate", "--user", voice, "--out", voice / "x.npz"],
    ):
        kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert main([str(part) for part in command]) == 2, command
        assert "\n" not in capsys.readouterr().err.strip()
        assert kept == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}, command


def test_a_result_is_replaced_by_its_own_kind(tmp_path):
    moved, out = motion(tmp_path / "o.npz"), tmp_path / "joints.csv"
    for _ in range(2):
        assert main(["retarget", "--motion", str(moved), "--robot", "nao", "--out", str(out)]) == 0
    assert out.read_text().startswith("time")


def ends_in_one_line(read, file: Path) -> None:
    """The reader gives arrays, or one line; any other exception fails the test."""
    said = ""
    with suppress(UserError):
        try:
            read(file)
        except UserError as error:
            said = str(error)
            raise
    assert "\n" not in said


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), kind=st.sampled_from(["npz", "npy", "wav", "flac"]), good=st.booleans())
def test_readers_end_in_one_line_whatever_the_bytes(tmp_path_factory, data, kind, good):
    folder = tmp_path_factory.mktemp("fuzz")
    file = folder / f"f.{kind}"
    begin = {"npz": b"PK\x03\x04", "npy": b"\x93NUMPY\x01\x00", "wav": b"RIFF\x00\x01\x00\x00WAVEfmt ", "flac": b"fLaC"}
    file.write_bytes((begin[kind] if good else b"") + data)
    ends_in_one_line(load_motion if kind in ("npz", "npy") else load_audio, file)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 1 << 16), value=st.integers(0, 255), cut=st.integers(0, 1 << 16))
def test_readers_survive_flipped_and_cut_files(tmp_path_factory, at, value, cut):
    folder = tmp_path_factory.mktemp("fuzz")
    write_motion(folder / "m.npz", np.zeros((4, 56), np.float32))
    soundfile.write(folder / "s.wav", np.zeros(300), 16000)
    for file, read in ((folder / "m.npz", load_motion), (folder / "s.wav", load_audio)):
        contents = bytearray(file.read_bytes())
        contents[at % len(contents)] = value
        file.write_bytes(contents[: max(1, cut % (2 * len(contents)))])
        ends_in_one_line(read, file)


def test_names_that_are_no_utf8_are_shown(tmp_path, capsys):
    name = bytes(tmp_path) + b"/caf\xe9.wav"
    assert main(["generate", "--user", os.fsdecode(name), "--out", str(tmp_path / "o.npz")]) == 2
    assert "caf\\xe9.wav not found" in capsys.readouterr().err


def test_sniffing_says_what_a_text_is(tmp_path):
    for contents, what in (
        (b"[1, 2]", "a JSON text"),
        (b"<?xml version='1.0'?><a/>", "an XML document"),
        (b"a: 1\n", "a text"),
    ):
        (tmp_path / "f").write_bytes(contents)
        assert sniff(tmp_path / "f") == what
