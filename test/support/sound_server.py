"""A PulseAudio of the test's own, with a virtual microphone and loudspeaker: a sound card without sound hardware."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MISSING = [tool for tool in ("pulseaudio", "pactl", "paplay") if shutil.which(tool) is None]
ALSA = Path("/usr/share/alsa/alsa.conf")
PLUGIN = any(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so"))


def reason() -> str | None:
    """Why there can be no virtual sound card here; None if there can."""
    if MISSING:
        return f"needs {', '.join(MISSING)} (apt install pulseaudio pulseaudio-utils)"
    if not ALSA.is_file() or not PLUGIN:
        return "needs ALSA's PulseAudio plugin (apt install libasound2-plugins)"
    return None


class SoundServer:
    """``mic``: what is played into sink `mic` is heard on the device `virtual_mic`; likewise for the loudspeaker."""

    def __init__(self, folder: Path) -> None:
        runtime = folder / "pulse"
        runtime.mkdir(mode=0o700)
        config = folder / "asound.conf"
        config.write_text(
            f"<{ALSA}>\n"
            + "".join(
                f'pcm.{name} {{ type pulse device "{device}" hint {{ show on description "{name}" }} }}\n'
                for name, device in (
                    ("virtual_mic", "mic.monitor"),
                    ("virtual_speaker", "speaker"),
                    ("virtual_ear", "speaker.monitor"),
                )
            )
        )
        self.environment = {
            "XDG_RUNTIME_DIR": str(runtime),
            "PULSE_RUNTIME_PATH": str(runtime),
            "PULSE_COOKIE": str(folder / "cookie"),
            "ALSA_CONFIG_PATH": str(config),
        }
        self._env = {**os.environ, **self.environment, "HOME": str(folder)}
        self._process = subprocess.Popen(
            [
                "pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no",
                "-L", "module-native-protocol-unix",
                "-L", "module-null-sink sink_name=speaker rate=48000",
                "-L", "module-null-sink sink_name=mic rate=48000",
            ],
            env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for _ in range(200):
            if self._process.poll() is not None:
                raise RuntimeError(f"pulseaudio ended: {self._process.communicate()[1]}")
            if self.pactl("info", check=False).returncode == 0:
                return
        raise RuntimeError("pulseaudio does not answer")

    def pactl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Talk to the server."""
        return subprocess.run(["pactl", *args], env=self._env, capture_output=True, text=True, check=check, timeout=10)

    def unplug(self, sink: str) -> None:
        """The device is gone."""
        for line in self.pactl("list", "short", "modules").stdout.splitlines():
            number, _, argument = line.split("\t")[:3]
            if f"sink_name={sink} " in f"{argument} ":
                self.pactl("unload-module", number)

    def plug(self, sink: str) -> None:
        """The device is back."""
        self.pactl("load-module", "module-null-sink", f"sink_name={sink}", "rate=48000")

    def play(self, wav: Path, sink: str) -> subprocess.Popen[bytes]:
        """Play a file into a sink."""
        return subprocess.Popen(["paplay", f"--device={sink}", str(wav)], env=self._env)

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.communicate()


@contextmanager
def sound_server(folder: Path) -> Iterator[SoundServer]:
    """A running server whose environment is this process's meanwhile."""
    server = SoundServer(folder)
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        server.close()
