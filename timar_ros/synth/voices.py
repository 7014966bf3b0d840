"""Synthetic voices: espeak-ng and flite as programs, varied in rate, pitch and vocal-tract length.

Tests showed which espeak-ng variants work: every ``+variant`` changes ``en-us``, ``en-us-nyc``, ``en-029``,
``en-gb-x-rp`` and the like, while ``en-gb`` ignores it; so ``en-gb`` is not used with variants. Flite's ``slt``,
``rms``, ``awb`` and ``kal16`` speak at 16 kHz; their pitch and pace are features that can be set.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE

INSTALL = "install them: make synth-tools, or sudo apt install espeak-ng flite"

# Accents and variants of espeak-ng; the last of each row are reserved for the out-of-distribution split.
ACCENTS = ("en-us", "en-us-nyc", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "de", "it", "nl", "sv")
ACCENTS_OOD = ("en-gb-scotland", "en-gb-x-gbcwmd", "es-419", "pl")
VARIANTS = {
    "f": ("+f1", "+f2", "+f3", "+f4", "+Annie", "+linda", "+belinda", "+Alicia"),
    "m": ("+m1", "+m2", "+m3", "+m4", "+m5", "+m7", "+max", "+Michael", "+Gene", "+Lee", "+edward", "+john"),
}
VARIANTS_OOD = {"f": ("+f5", "+steph", "+aunty"), "m": ("+m6", "+m8", "+zac", "+victor", "+benjamin")}
# Flite's voices with their natural mean pitch in Hz.
FLITE = {"f": (("slt", 170.0),), "m": (("rms", 95.0), ("kal16", 105.0))}
FLITE_OOD = {"f": (("slt", 170.0),), "m": (("awb", 125.0),)}


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker's voice.

    ``rate`` is words a minute, ``pitch`` 0–99 for espeak-ng and Hz for flite, ``tract`` the factor by which all
    frequencies are stretched (1.1: a shorter vocal tract), ``range`` how lively flite's pitch is (1: normal;
    espeak-ng's depends on its variant).
    """

    engine: str
    name: str
    sex: str
    rate: float
    pitch: float
    range: float
    tract: float

    @property
    def key(self) -> int:
        """A number that identifies the voice on every machine; it seeds the person's face and manner."""
        return int.from_bytes(hashlib.sha256(repr(self).encode()).digest()[:8], "little")


@lru_cache(maxsize=2)
def voices(ood: bool) -> tuple[Voice, ...]:
    """The cast: 96 voices to train and test on, 32 others for the out-of-distribution split."""
    rng = np.random.default_rng(20251 + ood)
    accents, variants, flite = (ACCENTS_OOD, VARIANTS_OOD, FLITE_OOD) if ood else (ACCENTS, VARIANTS, FLITE)
    cast = []
    for index in range(32 if ood else 96):
        sex = "fm"[index % 2]
        tract = float(rng.uniform(1.0, 1.14) if sex == "f" else rng.uniform(0.9, 1.06))
        if index % 8 < 3:
            name, pitch = flite[sex][rng.integers(len(flite[sex]))]
            # Flite has no other female voice to hold out: a clearly shorter tract makes slt another person.
            tract += 0.1 if ood and name == "slt" else 0.0
            cast.append(
                Voice("flite", name, sex, 165 * rng.uniform(0.85, 1.2), pitch * rng.uniform(0.85, 1.2),
                      rng.uniform(0.7, 1.6), tract)
            )  # fmt: skip
        else:
            # Most speakers are native: the foreign accents make up a quarter of the espeak-ng voices.
            foreign = [a for a in accents if not a.startswith("en")]
            native = [a for a in accents if a.startswith("en")]
            pool = foreign if rng.random() < 0.25 else native
            name = pool[rng.integers(len(pool))] + variants[sex][rng.integers(len(variants[sex]))]
            low, high = (45, 75) if sex == "f" else (20, 55)
            cast.append(
                Voice(
                    "espeak-ng", name, sex, rng.uniform(140, 200), rng.uniform(low, high), rng.uniform(0.7, 1.5), tract
                )
            )
    return tuple(cast)


def require_engines() -> None:
    """Check that both programs are installed; otherwise the conversations would depend on the machine.

    :raises UserError: a program is missing; the message says how to install it.
    """
    missing = [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]
    if missing:
        raise UserError(f"synthetic voices need {' and '.join(missing)}, which are not on the PATH; {INSTALL}")


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", b"") or b""
        raise UserError(
            f"{command[0]} failed ({error}) {detail.decode(errors='replace').strip()}; {INSTALL}"
        ) from error


def _espeak(voice: Voice, text: str) -> tuple[NDArray[np.float32], int]:
    # Stretching by the tract factor shortens and raises the voice: compensate for both here.
    words_a_minute = round(voice.rate / voice.tract)
    pitch = round(float(np.clip(voice.pitch - 60 * (voice.tract - 1), 0, 99)))
    command = ["espeak-ng", "-v", voice.name, "-s", str(words_a_minute), "-p", str(pitch), "-z", "--stdout", "--", text]
    # The header of a WAV written to a pipe lacks the length: read the raw samples after it.
    raw = _run(command)
    start = raw.find(b"data") + 8
    rate = int.from_bytes(raw[24:28], "little")
    usable = len(raw) - (len(raw) - start) % 2
    return np.frombuffer(raw[start:usable], "<i2").astype(np.float32) / np.float32(32768), rate


def _flite(voice: Voice, text: str) -> tuple[NDArray[np.float32], int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        features = {
            "duration_stretch": 165 / voice.rate * voice.tract,
            "int_f0_target_mean": voice.pitch / voice.tract,
            "int_f0_target_stddev": 15 * voice.range,
        }
        options = [word for key, value in features.items() for word in ("--setf", f"{key}={value:.4f}")]
        _run(["flite", "-voice", voice.name, *options, "-t", text, "-o", str(path)])
        samples, rate = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    return np.asarray(samples, np.float32), int(rate)


def speak(voice: Voice, text: str, haste: float = 1.0, lift: float = 0.0) -> NDArray[np.float32]:
    """Speak a text; 16 kHz mono, the silence before and after cut off.

    :param haste: pace relative to the voice's own.
    :param lift: pitch relative to the voice's own, about in semitones.
    """
    lifted = 2 ** (lift / 12)
    pitch = voice.pitch * lifted if voice.engine == "flite" else voice.pitch + 3 * lift
    voice = replace(voice, rate=voice.rate * haste, pitch=pitch)
    samples, rate = (_flite if voice.engine == "flite" else _espeak)(voice, text)
    samples = soxr.resample(samples, rate * voice.tract, MODEL_RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * max(float(np.abs(samples).max(initial=0.0)), 1e-6))
    if not len(loud):
        raise UserError(f"{voice.engine} ({voice.name}) made no sound for {text!r}; {INSTALL}")
    margin = MODEL_RATE // 100
    return np.ascontiguousarray(samples[max(0, loud[0] - margin) : loud[-1] + margin], dtype=np.float32)
