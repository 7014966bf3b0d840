"""Every reader on damaged inputs: a result, or one line. TIMAR_FUZZ_EXAMPLES sets how many for each (default 25).

`scripts/fuzz.py` does the same in processes of bounded memory and time, for as many inputs as there is time for.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from functools import lru_cache

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzzing import OPERATIONS, TARGETS, Target, damaged, fault_of, one_input

from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.bag_foreign import read_mapping
from timar_ros.data.motion_files import load_motion
from timar_ros.errors import UserError
from timar_ros.model import TimarConfig, load_timar

EXAMPLES = int(os.environ.get("TIMAR_FUZZ_EXAMPLES", "25"))
EDITS = st.lists(
    st.tuples(st.integers(0, OPERATIONS - 1), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=6,
)


@lru_cache(maxsize=2)
def target(name: str) -> Target:
    return TARGETS[name][0]()


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_gives_a_result_or_one_line(name):
    made = target(name)
    for seed in range(len(made.seeds)):
        assert one_input(made, [], seed) is None

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(edits=EDITS, seed=st.integers(0, 999))
    def holds(edits, seed):
        assert one_input(made, edits, seed) is None

    holds()


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("x"), "ValueError"),
        (UserError("one\ntwo"), "several lines"),
        (RecursionError("deep"), "RecursionError"),
    ],
)
def test_what_is_no_result_and_no_line_is_a_fault(raised, told):
    def read():
        raise raised

    fault = fault_of(read)
    assert fault is not None
    assert told in fault


def test_memory_that_was_used_up_is_a_fault_even_where_it_is_told_in_a_line():
    def read():
        try:
            raise MemoryError
        except MemoryError as error:
            raise UserError("it asks for more memory than there is") from error

    assert "memory" in (fault_of(read) or "")
    assert fault_of(lambda: None) is None


def test_edits_do_what_they_say():
    data = bytes(range(64))
    changed = [damaged(data, [(operation, 0.5, 12345)]) for operation in range(8)]
    assert all(each != data for each in changed)
    assert damaged(b"a: 1\nb: 2\n", [(0, 0.0, 1)], text=True) == b"-1: 1\nb: 2\n"


def test_the_script_runs_and_finds_a_planted_fault(repository, tmp_path):
    """A reader that raises, one that takes too much memory, and one that does not end."""
    path = repository / "scripts" / "fuzz.py"
    plant = tmp_path / "planted.py"
    plant.write_text(
        f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("fuzz", {str(path)!r})
fuzz = importlib.util.module_from_spec(spec)
sys.modules["fuzz"] = fuzz
spec.loader.exec_module(fuzz)
import argparse, os, tempfile
from support import fuzzing

def bad(seed, edits, folder):
    which = int.from_bytes(seed, "little")
    if not edits:
        return None
    if which == 0:
        raise ZeroDivisionError("planted")
    if which == 1:
        return len(bytes(1 << 40))
    while True:
        pass

fuzzing.TARGETS["planted"] = (lambda: fuzzing.Target([bytes([which]) for which in range(3)], bad), 1)

class Told:
    def __init__(self): self.rows = []
    def put(self, row): self.rows.append(row)

told = Told()
args = argparse.Namespace(seed="0", seconds=0.3, megabytes=256, scratch=tempfile.mkdtemp())
fuzz._work("planted", 0, 12, args, told)
print(sorted({{row[4].split(":")[0].split(" at")[0] for row in told.rows if row[1] == "fault"}}))
"""
    )
    done = subprocess.run([sys.executable, str(plant)], capture_output=True, text=True, check=False, timeout=300)
    assert "['MemoryError', 'ZeroDivisionError', 'more than 0.3 s']" in done.stdout, done.stdout + done.stderr


def test_a_giant_record_is_refused_before_anything_is_allocated(tmp_path):
    bag = tmp_path / "f.mcap"
    bag.write_bytes(b"\x89MCAP0\r\n\x01" + struct.pack("<Q", 1 << 50) + bytes(200))
    began = time.process_time()
    with pytest.raises(UserError, match=r"f\.mcap"):
        BagReader(bag)
    assert time.process_time() - began < 10.0


@pytest.mark.parametrize(
    ("name", "value"),
    [("encoder_depth", 10**21), ("dropout", float("-inf")), ("speech_width", 16.5), ("turn_seconds", 0), ("causal", 1)],
)
def test_a_model_of_impossible_sizes_is_refused_at_once(name, value):
    with pytest.raises(UserError, match=name):
        TimarConfig.from_dict({name: value})


def test_a_giant_header_of_an_array_is_refused_before_anything_is_allocated(tmp_path):
    for version, told in ((b"\x02\x00", "header of 4294967154 bytes"), (b"\x01c", r"format 1\.99")):
        (tmp_path / "f.npy").write_bytes(b"\x93NUMPY" + version + b"r\xff\xff\xff" + bytes(64))
        with pytest.raises(UserError, match=told):
            load_motion(tmp_path / "f.npy")


def test_a_topic_of_several_lines_is_told_in_one(tmp_path):
    (tmp_path / "f.yaml").write_text('user_audio: "/user\\u2028\\naudio"\n')
    with pytest.raises(UserError, match=r"'/user\\u2028\\naudio'") as refused:
        read_mapping(tmp_path / "f.yaml")
    assert len(str(refused.value).splitlines()) == 1


def test_a_description_nested_deeply_is_one_line(tmp_path):
    from timar_ros.retarget.profile import load_profile

    (tmp_path / "f.yaml").write_text("[" * 100_000)
    with pytest.raises(UserError, match="no valid YAML"):
        load_profile(tmp_path / "f.yaml")
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="no valid JSON"):
        load_timar(tmp_path)
