"""The one definition of a FLAME frame and of the rates of speech and motion.

A frame is 56 numbers in TIMAR's order: 50 expression coefficients, then the rotation of the jaw, then that of the head,
each an axis-angle vector [rad] in FLAME's axes (x to the head's left, y up, z out of the face; ``docs/frames.md``).
NaN marks unknown values.
"""

from __future__ import annotations

MODEL_RATE = 16000
"""Samples of speech per second [Hz], the rate of the speech encoders' training."""
MOTION_RATE = 25.0
"""Frames of motion per second [Hz]."""
SAMPLES_PER_FRAME = 640
"""Samples of speech during one frame: ``MODEL_RATE / MOTION_RATE``."""

EXPRESSION = slice(0, 50)
JAW = slice(50, 53)
HEAD = slice(53, 56)
PARTS = {"expression": EXPRESSION, "jaw": JAW, "head_pose": HEAD}
"""The parts whose columns are known or unknown together, by their names in messages."""
EXPRESSION_SIZE = 50
MOTION_SIZE = 56
"""Columns of a frame."""

JAW_OPENING = 50
"""The column that opens the mouth: the jaw's rotation about x."""
PITCH, YAW, ROLL = 53, 54, 55
"""Columns of the head: positive is down, to the subject's left, towards the subject's right shoulder."""
