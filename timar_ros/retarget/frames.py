"""From FLAME frames to wanted joint positions, frame by frame: checks, neutral pose, gains, kinematics, jaw, face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.motion import EXPRESSION, HEAD, JAW, JAW_OPENING, MOTION_SIZE
from timar_ros.retarget.kinematics import Neck
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.retarget_options import RetargetOptions
from timar_ros.retarget.rotations import flame_to_rep

Float = NDArray[np.float64]
# Time constant with which gains change from listening to speaking and back.
GAIN_SECONDS = 0.25
# Wanted positions stay this share of the range away from its ends, to leave room for smoothing.
MARGIN = 0.005


@dataclass
class Wanted:
    """Wanted values per frame.

    ``joints`` [N, J]; ``nods`` [N, J_neck]: the fast part relative to neutral if the gaze mode needs it, else 0;
    ``mouth`` [N]; ``lost`` [N] rad.
    """

    joints: Float
    nods: Float
    mouth: Float
    lost: Float


class FrameConverter:
    """Turns frames into wanted joint positions; remembers the neutral pose, gains and the last good frame."""

    def __init__(self, profile: RobotProfile, options: RetargetOptions) -> None:
        self.profile, self.options = profile, options
        self.neck = Neck(profile)
        limits = profile.limits()
        self._lower, self._upper = limits["lower"], limits["upper"]
        self._neutral, self._velocity = limits["neutral"], limits["velocity"]
        self._necks = len(profile.neck)
        self.rejected = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but the count of rejected frames."""
        fixed = np.asarray(self.options.neutral_pose, dtype=np.float64)
        self._pose = fixed if self.options.neutral == "fixed" else np.zeros(3)
        self._averaged_seconds = 0.0  # seconds that the running neutral pose has averaged over
        self._gains: Float | None = None
        self.cut()

    def cut(self) -> None:
        """Forget the last frame: the next frames do not continue it."""
        self._slow: Float | None = None
        self._last = np.zeros(MOTION_SIZE)
        self._previous: Float | None = None

    def convert(self, frames: Float, rate: float, speaking: NDArray[np.uint8] | None) -> Wanted:
        """Wanted values of frames [N, 56] at ``rate`` [Hz]; invalid frames repeat the last good one.

        :param speaking: for each frame 1 while the agent speaks; None if not known (taken as speaking).
        """
        frames = self._checked(frames)
        gains, speeds = self._behaviour(len(frames), rate, speaking)
        vectors = flame_to_rep(self._centred(frames[:, HEAD], rate)) * gains[:, None]
        slow = vectors
        if self.options.gaze_mode == "nods" or self.options.nod_gain != 1.0:
            slow = self._slow_part(vectors, rate)
            vectors = slow + self.options.nod_gain * (vectors - slow)
        positions, lost = self.neck.solve(Rotation.from_rotvec(vectors))
        nods = np.zeros_like(positions)
        if self.options.gaze_mode == "nods":
            fast = Rotation.from_rotvec(vectors - slow)
            nods = self.neck.solve(fast)[0] - self._neutral[: self._necks]
        mouth = self._mouth(frames[:, JAW_OPENING])
        joints = np.empty((len(frames), len(self._neutral)))
        joints[:, : self._necks] = positions
        column = self._necks
        jaw = self.profile.jaw
        if jaw.joint is not None:
            joints[:, column] = jaw.joint.neutral + mouth * (jaw.open_position - jaw.joint.neutral)
            column += 1
        for index, joint in enumerate(self.profile.face):
            value = joint.neutral + vectors @ np.asarray(joint.head) + joint.jaw * mouth
            for coefficient, weight in joint.expression:
                value = value + weight * frames[:, coefficient]
            joints[:, column + index] = value
        self._slow_down(joints, speeds, rate)
        return Wanted(self.inside(joints), nods, mouth, lost)

    def inside(self, joints: Float) -> Float:
        """Joint positions [N, J] clipped into the limits with a small margin."""
        room = np.minimum(MARGIN * (self._upper - self._lower), 0.01)
        low, high = self._lower + room, self._upper - room
        # Jaw and lids rest at the end of their range, which must stay reachable.
        result = np.clip(joints, np.minimum(low, self._neutral), np.maximum(high, self._neutral))
        result[:, : self._necks] = self.neck.clamp(result[:, : self._necks], margin=0.0)
        for coupling in self.profile.couplings:
            names = self.profile.names
            column, by = names.index(coupling.joint), names.index(coupling.by)
            lower, upper = coupling.bounds(result[:, by])
            result[:, column] = np.clip(result[:, column], lower + 0.01, upper - 0.01)
        return result

    def _checked(self, frames: Float) -> Float:
        size_head = np.linalg.norm(frames[:, HEAD], axis=1)
        size_jaw = np.linalg.norm(frames[:, JAW], axis=1)
        with np.errstate(invalid="ignore"):
            good = np.isfinite(frames).all(axis=1) & (size_head <= self.options.max_head)
            good &= (size_jaw <= self.options.max_jaw) & (np.abs(frames[:, EXPRESSION]) <= 50.0).all(axis=1)
        if good.all():
            result = frames
        else:
            self.rejected += int(np.count_nonzero(~good))
            source = np.where(good, np.arange(len(frames)), -1)
            source = np.maximum.accumulate(source)
            result = np.where((source >= 0)[:, None], frames[source], self._last)
        self._last = result[-1].copy()
        return result

    def _centred(self, vectors: Float, rate: float) -> Float:
        """Head rotation vectors [N, 3] without the neutral pose (removed on the body's side), FLAME axes."""
        mode = self.options.neutral
        if mode == "none":
            return vectors
        poses = np.empty_like(vectors)
        for index, vector in enumerate(vectors):
            if mode == "running":
                self._averaged_seconds = min(self._averaged_seconds + 1.0 / rate, self.options.neutral_seconds)
                # Start with a weight of one second on "centred": the first frame must not become the neutral pose.
                self._pose = self._pose + (vector - self._pose) / (rate * (self._averaged_seconds + 1.0))
            poses[index] = self._pose
        return np.asarray((Rotation.from_rotvec(poses).inv() * Rotation.from_rotvec(vectors)).as_rotvec())

    def _behaviour(self, count: int, rate: float, speaking: NDArray[np.uint8] | None) -> tuple[Float, Float]:
        """Gain and share of speed for each frame, eased from listening to speaking and back."""
        o = self.options
        talk = np.array([o.speaking_gain, o.speaking_speed])
        listen = np.array([o.listening_gain, o.listening_speed])
        speaks = np.ones(count, dtype=bool) if speaking is None or len(speaking) != count else speaking.astype(bool)
        gains = (talk if speaks[0] else listen) if self._gains is None else self._gains
        result = np.where(speaks[:, None], talk, listen)
        if (result == gains).all():
            self._gains = gains
            return result[:, 0], result[:, 1]
        keep = np.exp(-1.0 / (GAIN_SECONDS * rate))
        for index, aim in enumerate(result.copy()):
            gains = aim if np.abs(gains - aim).max() < 1e-4 else keep * gains + (1 - keep) * aim
            result[index] = gains
        self._gains = gains
        return result[:, 0], result[:, 1]

    def _slow_part(self, vectors: Float, rate: float) -> Float:
        """The slow part of head rotation vectors [N, 3]; the rest are nods and shakes."""
        keep = np.exp(-1.0 / (self.options.nod_seconds * rate))
        slow = vectors[0] if self._slow is None else self._slow
        result = np.empty_like(vectors)
        for index, vector in enumerate(vectors):
            slow = keep * slow + (1 - keep) * vector
            result[index] = slow
        self._slow = slow
        return result

    def _mouth(self, jaw: Float) -> Float:
        """Opening within 0 and 1 of FLAME's jaw rotations about x [N]."""
        mouth = self.profile.jaw
        opening = mouth.gain * self.options.jaw_gain * np.maximum(jaw - mouth.dead_band, 0.0) / mouth.full_open
        return np.clip(opening, 0.0, 1.0)

    def _slow_down(self, joints: Float, speeds: Float, rate: float) -> None:
        """Keep the change from frame to frame below the wanted share of the velocity limits, in place."""
        if (speeds < 1.0).any():
            previous = joints[0] if self._previous is None else self._previous
            for index, speed in enumerate(speeds):
                if speed < 1.0:
                    step = speed * self._velocity / rate
                    joints[index] = np.clip(joints[index], previous - step, previous + step)
                previous = joints[index]
        self._previous = joints[-1].copy()
