"""Metrics of generated head motion against the truth, as in DualTalk's and TIMAR's tables.

Sources: arXiv 2505.18096 (definitions) and arXiv 2512.15340 (tables 1 and 2). Motion frames are in TIMAR order, 25 a
second: 50 expression coefficients, 3 jaw and 3 head pose (axis-angle, radians).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.errors import UserError, require
from timar_ros.motion import EXPRESSION, EXPRESSION_SIZE, HEAD, JAW, MOTION_SIZE

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]

GROUPS = ("exp", "jaw", "pose")
CLUSTERS = {"exp": 40, "jaw": 10, "pose": 10}
NAMES = ("fid", "p_fid", "mse", "sid", "reverse_sid", "sts", "variance_pre", "variance_gt", "rpcc")
METRICS = tuple(f"{name}_{group}" for name in NAMES for group in GROUPS)
SHORTEST = max(CLUSTERS.values())


def frechet_distance(one: Matrix, other: Matrix) -> float:
    """Fréchet distance of two sets of samples ``[T,n]`` as Gaussians: |μ1-μ2|² + tr(Σ1+Σ2-2(Σ1Σ2)^½), ddof 1."""
    first, second = np.atleast_2d(np.cov(one, rowvar=False)), np.atleast_2d(np.cov(other, rowvar=False))
    # The trace of the root of a product of two covariances is the sum of the roots of its eigenvalues, which are those
    # of the symmetric Σ1^½ Σ2 Σ1^½: much faster than a matrix root, and never complex.
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    distance = np.square(one.mean(axis=0) - other.mean(axis=0)).sum() + np.trace(first) + np.trace(second) - 2 * overlap
    return float(max(distance, 0.0))


def diversity(fitted: Array, measured: Array, clusters: int) -> float:
    """Shannon index in bits of ``measured`` over the k-means clusters of ``fitted`` (both ``[T,n]``)."""
    cluster = require("sklearn.cluster", "pip install scikit-learn", "the diversity metric (SID)")
    with warnings.catch_warnings():
        # Fewer different frames than clusters (a still face): fewer clusters are found, and the index shows this.
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        means = cluster.KMeans(n_clusters=clusters, random_state=0, n_init="auto").fit(fitted)
    share = np.bincount(means.predict(measured), minlength=clusters) / len(measured)
    return float(-(share * np.log2(share + 1e-6)).sum())


def correlation(one: Matrix, other: Matrix) -> float:
    """Pearson's correlation over all frames and columns; 0 if one input does not move."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0


def _group(prediction: Array, truth: Array, partner: Array, clusters: int) -> dict[str, float]:
    p, g, other = (x.astype(np.float64) for x in (prediction, truth, partner))
    step = np.diff(p, axis=0) - np.diff(g, axis=0)
    return {
        "fid": frechet_distance(p, g),
        "p_fid": frechet_distance(np.concatenate([other, p], axis=1), np.concatenate([other, g], axis=1)),
        "mse": float(np.square(p - g).mean()),
        "sid": diversity(truth, prediction, clusters),
        "reverse_sid": diversity(prediction, truth, clusters),
        "sts": float(np.sqrt(np.square(step).sum() / 0.1)),
        "variance_pre": float(p.var(axis=0).mean()),
        "variance_gt": float(g.var(axis=0).mean()),
        "rpcc": abs(correlation(p, other) - correlation(g, other)),
    }


def compute_metrics(
    prediction: ArrayLike, exp: ArrayLike, pose: ArrayLike, partner_exp: ArrayLike, partner_pose: ArrayLike
) -> dict[str, float]:
    """Every metric of one clip.

    :param prediction: the agent's generated motion ``[T,56]`` in TIMAR order.
    :param exp: the agent's true expression ``[≥T,50]``; ``pose [≥T,6]`` its head pose, then its jaw (DualTalk's order).
    :param partner_exp: the user's expression, likewise; ``partner_pose`` its head pose and jaw.
    :returns: the names in :data:`METRICS`. Truth and partner are cropped to the prediction's frames.
    :raises UserError: shapes do not fit, values are not finite, or the clip is too short to cluster.
    """
    guess, *others = (np.asarray(x, dtype=np.float32) for x in (prediction, exp, pose, partner_exp, partner_pose))
    if guess.ndim != 2 or guess.shape[1] != MOTION_SIZE:
        raise UserError(f"metrics: the prediction has shape {guess.shape}; [T,56] is needed")
    frames = len(guess)
    if frames < SHORTEST:
        raise UserError(f"metrics: the clip has {frames} frames; at least {SHORTEST} are needed")
    names = (("exp", EXPRESSION_SIZE), ("pose", 6), ("partner_exp", EXPRESSION_SIZE), ("partner_pose", 6))
    for (name, width), array in zip(names, others, strict=True):
        if array.ndim != 2 or array.shape[1] != width or len(array) < frames:
            raise UserError(f"metrics: {name} has shape {array.shape}; [{frames} or more,{width}] is needed")
    exp_, pose_, partner_exp_, partner_pose_ = (array[:frames] for array in others)
    if not all(np.isfinite(array).all() for array in (guess, exp_, pose_, partner_exp_, partner_pose_)):
        raise UserError("metrics: a value is not finite (frames that were not tracked cannot be scored)")
    parts = {
        "exp": (guess[:, EXPRESSION], exp_, partner_exp_),
        "jaw": (guess[:, JAW], pose_[:, 3:], partner_pose_[:, 3:]),
        "pose": (guess[:, HEAD], pose_[:, :3], partner_pose_[:, :3]),
    }
    found = {group: _group(*arrays, CLUSTERS[group]) for group, arrays in parts.items()}
    return {f"{name}_{group}": found[group][name] for name in NAMES for group in GROUPS}


def mean_metrics(clips: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The plain mean of every metric over clips, as in the tables.

    :raises UserError: there is no clip.
    """
    rows = list(clips)
    if not rows:
        raise UserError("metrics: no clip to take the mean of")
    return {name: float(np.mean([row[name] for row in rows])) for name in METRICS}
