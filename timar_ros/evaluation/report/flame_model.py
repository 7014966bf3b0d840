"""The FLAME face from the user's own model file: linear blend skinning in numpy.

FLAME (Li et al., SIGGRAPH Asia 2017) is licensed by its authors; no model comes with this package. Files of their
format are read: a dictionary with ``v_template [V,3]``, ``shapedirs [V,3,S]`` (300 of shape, then expression),
``posedirs [V,3,36]``, ``J_regressor [5,V]``, ``weights [V,5]``, ``kintree_table [2,5]`` and ``f [F,3]``, as .npz or as
the authors' .pkl. A pickle can run any code, so a restricted reader that allows only arrays reads this one.
"""

from __future__ import annotations

import importlib
import io
import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.errors import UserError
from timar_ros.motion import EXPRESSION, EXPRESSION_SIZE, HEAD, JAW

Floats = NDArray[np.float32]

JOINTS = 5  # root, neck, jaw, left eye, right eye
JAW_JOINT = 2
SHAPES = 300
NAMES = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


@dataclass(frozen=True)
class FlameModel:
    """A face [m]: template [V,3], expression [V,3,50], pose [V,3,36], regressor [5,V], weights [V,5], faces [F,3].

    ``parents``: each joint's parent, -1 for the root.
    """

    template: Floats
    expression: Floats
    pose: Floats
    regressor: Floats
    weights: Floats
    parents: tuple[int, ...]
    faces: NDArray[np.uint32]

    @property
    def pivot(self) -> Floats:
        """The root joint at rest, [3]: the head's centre of rotation."""
        return np.asarray(self.regressor[0] @ self.template)

    def vertices(self, frames: Floats, *, turned: bool = False) -> Floats:
        """The face in each frame, [T, V, 3].

        :param frames: [T, 56] in TIMAR order.
        :param turned: with the head's own rotation; without it only expression and jaw move.
        """
        count = len(frames)
        shaped = self.template + np.einsum("te,vce->tvc", frames[:, EXPRESSION], self.expression, optimize=True)
        joints = np.einsum("jv,tvc->tjc", self.regressor, shaped, optimize=True)
        rotations = np.tile(np.eye(3, dtype=np.float32), (count, JOINTS, 1, 1))
        rotations[:, JAW_JOINT] = Rotation.from_rotvec(frames[:, JAW]).as_matrix()
        if turned:
            rotations[:, 0] = Rotation.from_rotvec(frames[:, HEAD]).as_matrix()
        # Corrections of the surface where joints bend: linear in the rotations of all joints but the root.
        feature = (rotations[:, 1:] - np.eye(3, dtype=np.float32)).reshape(count, -1)
        posed = shaped + np.einsum("tp,vcp->tvc", feature, self.pose, optimize=True)
        turn, shift = self._chain(rotations, joints)
        blended = np.einsum("vj,tjab->tvab", self.weights, turn, optimize=True)
        moved = np.einsum("vj,tja->tva", self.weights, shift, optimize=True)
        return np.asarray(np.einsum("tvab,tvb->tva", blended, posed) + moved, np.float32)

    def _chain(self, rotations: Floats, joints: Floats) -> tuple[Floats, Floats]:
        """Each joint's world rotation, and the shift that takes a rest-pose point with it."""
        turn, place = np.empty_like(rotations), np.empty_like(joints)
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                turn[:, joint], place[:, joint] = rotations[:, joint], joints[:, joint]
                continue
            turn[:, joint] = turn[:, parent] @ rotations[:, joint]
            arm = (joints[:, joint] - joints[:, parent])[..., None]
            place[:, joint] = place[:, parent] + (turn[:, parent] @ arm)[..., 0]
        return turn, place - (turn @ joints[..., None])[..., 0]


@dataclass(frozen=True)
class Film:
    """Vertices over time as a mean [V,3], a basis [3V,K] and weights [T,K]; ``error``: the largest miss [m]."""

    mean: Floats
    basis: Floats
    weights: Floats
    error: float


def film(model: FlameModel, frames: Floats, most: int = 32, samples: int = 240, batch: int = 200) -> Film:
    """The face's motion (without the head's rotation) in few numbers, so that a page can hold minutes of it.

    :param most: largest size of the basis.
    :param samples: number of evenly spread frames from which to compute the basis.
    """
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, min(samples, len(frames))).round().astype(int))]
    shown = model.vertices(chosen).reshape(len(chosen), -1)
    mean = shown.mean(axis=0)
    _, strength, basis = np.linalg.svd(shown - mean, full_matrices=False)
    # Differences below a hundredth of a millimetre are invisible.
    kept = max(1, min(most, int((strength / np.sqrt(len(chosen)) > 1e-5 * np.sqrt(len(mean))).sum())))
    axes = basis[:kept]
    weights, error = [], 0.0
    for first in range(0, len(frames), batch):
        flat = model.vertices(frames[first : first + batch]).reshape(-1, len(mean)) - mean
        found = flat @ axes.T
        error = max(error, float(np.abs(flat - found @ axes).max(initial=0.0)))
        weights.append(found)
    return Film(mean.reshape(-1, 3), axes.T.copy(), np.concatenate(weights), error)


def load_flame(path: str | Path) -> FlameModel:
    """A face model from the user's file.

    :raises UserError: when the file is no FLAME model, or its pickle holds more than arrays.
    """
    file = Path(path)
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                found: dict[str, Any] = {name: archive[name] for name in archive.files}
        elif file.suffix == ".pkl":
            found = _ArraysOnly(io.BytesIO(file.read_bytes()), encoding="latin1").load()
        else:
            raise UserError(f"{file}: a FLAME model is a .npz or .pkl file")
    except UserError:
        raise
    except (OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError, AttributeError, TypeError) as error:
        raise UserError(f"cannot read the FLAME model {file}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or (missing := [name for name in NAMES if name not in found]):
        lacking = ", ".join(missing) if isinstance(found, dict) else "everything"
        raise UserError(f"{file} is no FLAME model: it lacks {lacking}")
    return _checked(file, {name: _plain(found[name]) for name in NAMES})


def _checked(file: Path, found: dict[str, NDArray[Any]]) -> FlameModel:
    count = len(found["v_template"])
    shapes = found["shapedirs"]
    if shapes.ndim != 3 or shapes.shape[:2] != (count, 3) or shapes.shape[2] <= SHAPES:
        raise UserError(f"{file}: shapedirs has shape {shapes.shape}; [{count}, 3, more than {SHAPES}] is needed")
    expected = {
        "v_template": (count, 3),
        "posedirs": (count, 3, 9 * (JOINTS - 1)),
        "J_regressor": (JOINTS, count),
        "weights": (count, JOINTS),
        "kintree_table": (2, JOINTS),
    }
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise UserError(f"{file}: {name} has shape {found[name].shape}; {shape} is needed")
    faces = np.asarray(found["f"])
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.max(initial=0) >= count:
        raise UserError(f"{file}: f is no list of triangles of its {count} vertices")
    expression = np.zeros((count, 3, EXPRESSION_SIZE), np.float32)
    basis = shapes[:, :, SHAPES : SHAPES + EXPRESSION_SIZE]
    expression[:, :, : basis.shape[2]] = basis
    # The root's parent is written as -1 or as the largest unsigned number.
    parents = tuple(int(p) if 0 <= p < JOINTS else -1 for p in np.asarray(found["kintree_table"][0], np.int64))
    return FlameModel(
        template=found["v_template"].astype(np.float32),
        expression=expression,
        pose=found["posedirs"].astype(np.float32),
        regressor=found["J_regressor"].astype(np.float32),
        weights=found["weights"].astype(np.float32),
        parents=(-1, *parents[1:]),
        faces=faces.astype(np.uint32),
    )


class _Chumpy:
    """Represents an array of the library `chumpy`, which wrote the authors' files."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """The array's values."""
        return np.asarray(self.state["x"])


class _ArraysOnly(pickle.Unpickler):
    """Allows numpy's arrays, scipy's sparse matrices and chumpy's wrappers by name; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The object for a name in the pickle.

        :raises pickle.UnpicklingError: for any other name.
        """
        if name in ("_reconstruct", "scalar") and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            # numpy 2 moved this module; numpy 1 or 2 may have written the file, and may read it.
            home = "numpy._core" if find_spec("numpy._core") else "numpy.core"
            return getattr(importlib.import_module(f"{home}.multiarray"), name)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module.startswith("scipy.sparse") and name in ("csc_matrix", "csr_matrix", "coo_matrix"):
            import scipy.sparse

            return getattr(scipy.sparse, name)
        if module.startswith("chumpy") and name == "Ch":
            return _Chumpy
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            import copyreg

            return copyreg._reconstructor  # type: ignore[attr-defined]
        if name == "object" and module in ("__builtin__", "builtins"):
            return object
        if (module, name) == ("_codecs", "encode"):
            import codecs

            return codecs.encode
        raise pickle.UnpicklingError(f"it holds '{module}.{name}', which no face model needs; it is not opened")


def _plain(value: Any) -> NDArray[Any]:
    if isinstance(value, _Chumpy):
        value = value.array()
    if hasattr(value, "toarray"):
        value = value.toarray()
    return np.asarray(value)
