"""Generates and builds small interface packages, as their authors' packages would be, into a prefix of their own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HEADER = "std_msgs/Header header\n"
# Fields as published by the packages' authors; comments and constants left out.
PACKAGES: dict[str, dict[str, dict[str, str]]] = {
    "ros_drivers": {
        "audio_common_msgs": {
            "AudioData": "uint8[] data",
            "AudioDataStamped": HEADER + "AudioData audio",
            "AudioInfo": "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\n"
            "string coding_format",
        },
        "hri_msgs": {
            "FacialActionUnits": HEADER + "float32[99] intensity\nfloat32[99] confidence",
            "IdsList": HEADER + "string[] ids",
        },
        "tf2_msgs": {"TFMessage": "geometry_msgs/TransformStamped[] transforms"},
    },
    # An action's name begins with its folder.
    "ros4hri": {
        "tts_msgs": {
            "action/TTS": "string input\nstring locale\nstring voice\n---\n"
            "string error_msg\nstring text\n---\nstring word"
        }
    },
    "mgonzs13": {
        "audio_common_msgs": {
            "AudioData": "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\n"
            "uint8[] uint8_data",
            "AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk",
            "Audio": "AudioData audio_data\nAudioInfo info",
            "AudioStamped": HEADER + "Audio audio",
        },
    },
}

CMAKE = """cmake_minimum_required(VERSION 3.20)
project({name})
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(std_msgs REQUIRED)
find_package(geometry_msgs REQUIRED)
rosidl_generate_interfaces({name} {files} DEPENDENCIES std_msgs geometry_msgs)
ament_package()
"""
PACKAGE = """<?xml version="1.0"?>
<package format="3">
  <name>{name}</name><version>0.0.0</version><description>Stand-in for tests.</description>
  <maintainer email="nobody@example.com">nobody</maintainer><license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend><buildtool_depend>rosidl_default_generators</buildtool_depend>
  <depend>std_msgs</depend><depend>geometry_msgs</depend><exec_depend>rosidl_default_runtime</exec_depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
"""


def _environment() -> dict[str, str]:
    env = dict(os.environ)
    env["AMENT_PREFIX_PATH"] = os.pathsep.join(filter(None, [sys.prefix, env.get("AMENT_PREFIX_PATH")]))
    env["CMAKE_PREFIX_PATH"] = os.pathsep.join(filter(None, [sys.prefix, env.get("CMAKE_PREFIX_PATH")]))
    env["PATH"] = os.pathsep.join([str(Path(sys.prefix) / "bin"), env["PATH"]])
    return env


def build(family: str, root: Path) -> dict[str, str]:
    """Build one family of packages below ``root`` (once); returns the environment in which they can be imported."""
    packages = PACKAGES[family]
    mark = hashlib.sha1(repr((packages, CMAKE, PACKAGE, sys.prefix)).encode()).hexdigest()[:10]
    prefix = root / f"{family}-{mark}"
    env = _environment()
    if not (prefix / "done").is_file():
        for name, files in packages.items():
            source = root / f"{family}-{mark}-src" / name
            paths = [f"{file}.action" if "/" in file else f"msg/{file}.msg" for file in files]
            for path, text in zip(paths, files.values(), strict=True):
                (source / path).parent.mkdir(parents=True, exist_ok=True)
                (source / path).write_text(text + "\n")
            listed = " ".join(paths)
            (source / "CMakeLists.txt").write_text(CMAKE.format(name=name, files=listed))
            (source / "package.xml").write_text(PACKAGE.format(name=name))
            work = source / "build"
            for command in (
                [
                    "cmake", "-S", str(source), "-B", str(work), f"-DCMAKE_INSTALL_PREFIX={prefix}",
                    f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF",
                ],
                ["cmake", "--build", str(work), "-j", "2", "--target", "install"],
            ):  # fmt: skip
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        (prefix / "done").touch()
    site = next(prefix.glob("l*/python3*/*-packages"), None) or next(prefix.glob("local/l*/python3*/*-packages"))
    env["AMENT_PREFIX_PATH"] = os.pathsep.join([str(prefix), env["AMENT_PREFIX_PATH"]])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), env.get("PYTHONPATH")]))
    env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(prefix / "lib"), env.get("LD_LIBRARY_PATH")]))
    return env
