"""Lists and finds sound devices by name or number, through PortAudio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timar_ros.errors import UserError, require

INSTALL = "pip install 'timar_ros[live]' (and, on Debian or Ubuntu, 'apt-get install libportaudio2')"


# A sound server may need a moment to wake a device before its first block.
START_SECONDS = 3.0


@dataclass(frozen=True)
class Device:
    """A sound device as PortAudio lists it; rates in Hz, latencies in seconds."""

    index: int
    name: str
    host_api: str
    input_channels: int
    output_channels: int
    default_rate: float
    default_input: bool
    default_output: bool


def portaudio() -> Any:
    """The sounddevice module.

    :raises UserError: when the module or the PortAudio library is missing; the error names what to install.
    """
    try:
        return require("sounddevice", INSTALL, "live audio")
    except OSError as error:  # the module is installed, the shared library is not
        raise UserError(f"live audio needs the PortAudio library ({error}): {INSTALL}") from error


def refresh() -> None:
    """Make PortAudio list the devices again, so that it finds new ones. Every stream must be closed."""
    sd = portaudio()
    sd._terminate()
    sd._initialize()


def devices() -> list[Device]:
    """All devices, in PortAudio's order; empty on a machine without sound."""
    sd = portaudio()
    apis = [api["name"] for api in sd.query_hostapis()]
    default_in, default_out = sd.default.device
    return [
        Device(
            index=i,
            name=d["name"],
            host_api=apis[d["hostapi"]],
            input_channels=d["max_input_channels"],
            output_channels=d["max_output_channels"],
            default_rate=d["default_samplerate"],
            default_input=i == default_in,
            default_output=i == default_out,
        )
        for i, d in enumerate(sd.query_devices())
    ]


def find_device(wanted: str, kind: str) -> Device:
    """The device that a parameter names.

    :param wanted: empty or "default" for the default device, a number, or (a part of) a name, case-insensitive.
    :param kind: "input" or "output".
    :raises UserError: when no device or several match; the error lists all devices.
    """
    usable = [d for d in devices() if (d.input_channels if kind == "input" else d.output_channels) > 0]
    listed = ", ".join(f"{d.index}: '{d.name}'" for d in usable) or "none at all"
    if wanted.lower() in ("", "default"):
        chosen = [d for d in usable if (d.default_input if kind == "input" else d.default_output)] or usable[:1]
    elif wanted.isdigit():
        chosen = [d for d in usable if d.index == int(wanted)]
    else:
        exact = [d for d in usable if d.name.lower() == wanted.lower()]
        chosen = exact or [d for d in usable if wanted.lower() in d.name.lower()]
    if len(chosen) == 1:
        return chosen[0]
    what = f"no {kind} device" if not chosen else f"{len(chosen)} {kind} devices"
    raise UserError(f"{what} for {wanted!r}; there are: {listed} ('timar audio devices' shows them)")
