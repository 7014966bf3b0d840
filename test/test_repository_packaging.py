"""What is declared (package.xml, setup.cfg, CMakeLists.txt, documents) agrees with what the sources are."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import timar_ros
from timar_ros.errors import UserError
from timar_ros.resources import share

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "timar_ros").rglob("*.py"))

# Import name of what is declared under another name.
DISTRIBUTIONS = {
    "yaml": "PyYAML",
    "webrtcvad": "webrtcvad-wheels",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "pinocchio": "pin",
    "sklearn": "scikit-learn",
    "collada": "pycollada",
    "cv2": "opencv-contrib-python",
    "pythonosc": "python-osc",
    "PIL": "pillow",
}


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def declared_by_pip() -> set[str]:
    config = setup_cfg()
    lines = config["options"]["install_requires"].splitlines()
    for extra in config["options.extras_require"].values():
        lines += extra.splitlines()
    return {re.split(r"[ \[<>=!~]", line.strip())[0] for line in lines if line.strip()} - {"timar_ros"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Full names of what a file imports (for types alone left out), and whether at once or within a function."""
    tree = ast.parse(path.read_text(), feature_version=(3, 10))
    lazy: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lazy.update(ast.walk(node))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        at_once = node not in lazy
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, at_once
            yield from ((f"{node.module}.{alias.name}", at_once) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
            [module, *_] = node.args
            if isinstance(module, ast.Constant):
                yield str(module.value), False


def package_xml() -> object:
    package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg parses package.xml; it is not installed")
    warnings: list[str] = []
    found = package.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    assert not warnings
    return found


def test_package_xml_is_valid_and_agrees_with_setup_cfg() -> None:
    package = package_xml()
    assert package.package_format == 3
    assert package.name == setup_cfg()["metadata"]["name"] == "timar_ros"
    assert package.version == timar_ros.__version__
    assert [g.name for g in package.member_of_groups] == ["rosidl_interface_packages"]
    assert [e.content for e in package.exports if e.tagname == "build_type"] == ["ament_cmake"]
    assert [str(licence) for licence in package.licenses] == [setup_cfg()["metadata"]["license"]]


def test_changelog_tells_this_version() -> None:
    text = (ROOT / "CHANGELOG.rst").read_text()
    versions = re.findall(r"^(\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)$", text, re.MULTILINE)
    assert versions[0] == timar_ros.__version__


def test_every_library_that_is_imported_is_declared() -> None:
    package = package_xml()
    known = {d.name for d in [*package.exec_depends, *package.build_depends, *package.buildtool_depends]}
    known |= declared_by_pip() | set(sys.stdlib_module_names) | {"timar_ros"}
    unknown = {}
    for path in SOURCES:
        for name, _ in imports(path):
            top = name.split(".")[0]
            if DISTRIBUTIONS.get(top, top).lower() not in {k.lower() for k in known}:
                unknown.setdefault(top, str(path.relative_to(ROOT)))
    assert not unknown


def test_every_declared_library_is_explained() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    rows = {cell.strip(" `") for line in text.splitlines() if line.startswith("| `") for cell in line.split("|")[1:2]}
    assert rows == declared_by_pip()


def test_libraries_without_a_rosdep_key_are_named_in_package_xml() -> None:
    """Somebody who installs by rosdep must be told what rosdep does not bring."""
    text = (ROOT / "package.xml").read_text()
    config = setup_cfg()
    extras = config["options.extras_require"]
    lines = config["options"]["install_requires"] + "".join(
        extras[e] for e in ("model", "sim", "train", "live", "film", "face", "avatar")
    )
    needed = {re.split(r"[ \[<>=!~]", line.strip())[0] for line in lines.splitlines() if line.strip()} - {"timar_ros"}
    renamed = text.lower().replace("python3-yaml", "pyyaml").replace("python3-sklearn", "scikit-learn")
    renamed = renamed.replace("python3-pytorch", "torch").replace("-pip", "")
    words = set(re.findall(r"[\w-]+", renamed.replace("python3-", "")))
    assert not {name.lower() for name in needed} - words


def test_rosdep_runs_pip_only_when_told_to() -> None:
    """Ubuntu's pip refuses to install outside an environment, so a key that needs pip would fail a plain rosdep."""
    for told in (False, True):
        package: Any = package_xml()
        package.evaluate_conditions({"TIMAR_PIP_KEYS": "yes"} if told else {})
        names = {d.name for d in package.exec_depends if d.evaluated_condition}
        assert {"xacro", "robot_state_publisher"} <= names
        by_pip = {"python3-pytorch-pip", "python3-transformers-pip", "python3-rosbags-pip", "python3-mujoco-pip"}
        assert {name for name in names if name.endswith("-pip")} >= by_pip if told else not names & by_pip


def test_torch_is_pinned_in_one_place() -> None:
    pinned = re.compile(r"torch\s*==\s*\d")
    suffixes = {".py", ".cfg", ".toml", ".txt", ".xml", ".yml", ".yaml", ".md", ""}
    files = [p for p in ROOT.glob("*") if p.is_file()]
    files += [p for folder in ("scripts", "docs", "timar_ros", ".ci", ".github") for p in (ROOT / folder).rglob("*")]
    texts = [p for p in files if p.is_file() and p.suffix in suffixes]
    assert [str(p.relative_to(ROOT)) for p in texts if pinned.search(p.read_text())] == ["scripts/constraints.txt"]


NO_ROS = ("model", "streaming", "retarget", "simulation", "live")
NO_TORCH = ("retarget", "simulation", "streaming/turns", "streaming/normalise.py", "streaming/seams.py")
ROS = re.compile(r"(rclpy|launch|launch_ros|\w+_msgs|\w+_srvs|timar_ros\.(msg|srv|ros|graph|node_parts|nodes))(\.|$)")
LAYERS = (
    "errors distributed motion",
    "files options parallel resources",
    "console",
    "model retarget",
    "foreign simulation streaming",
    "audio data",
    "bags synth",
    "baselines",
    "evaluation training",
    "live",
    "ros",
    "graph node_parts",
    "nodes",
    "cli",
)
"""Packages and modules of `timar_ros`, lowest first. Each imports only from lines above its own, and from itself."""
LEVEL = {name: level for level, line in enumerate(LAYERS) for name in line.split()}


def modules_under(*places: str) -> list[Path]:
    return [p for p in SOURCES if any((ROOT / "timar_ros" / place) in (p, *p.parents) for place in places)]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> str:
    """The package or module right below `timar_ros`; "" for `timar_ros` itself."""
    return module.removeprefix("timar_ros").removeprefix(".").split(".")[0]


def imported_files() -> dict[str, set[str]]:
    """Which files of `timar_ros` each one imports, for types too. A name out of a package's `__init__` counts as it."""
    modules = {module_name(path): path for path in SOURCES}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 10))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in modules}
            elif isinstance(node, ast.ImportFrom) and node.module in modules:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {each if each in modules else node.module for each in inner}
    return found


def test_imports_run_one_way() -> None:
    """Also those within functions and for types alone."""
    above = []
    for name, others in imported_files().items():
        for other in others:
            one, two = layer_of(name), layer_of(other)
            # `timar_ros/__init__.py` itself, in no layer, has the version alone; everything may read it.
            if one and two and one != two and LEVEL[one] <= LEVEL[two]:
                above.append(f"{name} imports {other}")
    assert not above


def test_every_package_has_its_layer() -> None:
    assert {layer_of(module_name(path)) for path in SOURCES} - {""} == set(LEVEL)


def test_no_files_import_each_other() -> None:
    """Neither directly nor around a circle of several."""
    left = imported_files()
    while True:
        free = {name for name, others in left.items() if not others & left.keys()}
        if not free:
            break
        left = {name: others for name, others in left.items() if name not in free}
    assert not left


def test_the_core_never_imports_ros() -> None:
    assert not [(p.name, n) for p in modules_under(*NO_ROS) for n, _ in imports(p) if ROS.match(n)]


def test_bodies_without_a_brain_never_import_torch() -> None:
    assert not [(p.name, n) for p in modules_under(*NO_TORCH) for n, _ in imports(p) if n.split(".")[0] == "torch"]


def test_frames_and_rates_are_described_in_one_place() -> None:
    """Only `timar_ros/motion.py` says which columns of a frame are what, and that speech has 16 kHz."""
    literal = re.compile(r"slice\((0, 50|50, 53|53, 56)\)|\b50:53\b|\b53:(56)?\]|[ =(/]16_?000\b")
    code = [(p, re.sub(r'""".*?"""|#[^\n]*', "", p.read_text(), flags=re.DOTALL)) for p in SOURCES]
    assert [p.name for p, text in code if literal.search(text)] == ["motion.py"]


def test_commands_import_nothing_heavy_at_their_top() -> None:
    """`timar --help` imports every command's file."""
    heavy = {"torch", "transformers", "rclpy", "mujoco", "scipy", "rosbags", "numpy", "matplotlib", "soundfile"}
    wrong = [(p.name, n) for p in modules_under("cli") for n, top in imports(p) if top and n.split(".")[0] in heavy]
    assert not wrong


def nodes_with_main() -> set[str]:
    return {
        path.stem
        for path in modules_under("nodes")
        if path.parent.name == "nodes" and re.search(r"^def main\(\)", path.read_text(), re.MULTILINE)
    }


def test_every_node_has_its_executable() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    listed = re.search(r"foreach\(node ([^)]*)\)", text)
    assert listed
    assert set(listed[1].split()) == nodes_with_main()


@pytest.mark.parametrize("path", sorted(ROOT.glob("msg/*.msg")) + sorted(ROOT.glob("srv/*.srv")), ids=lambda p: p.name)
def test_every_field_of_an_interface_is_explained(path: Path) -> None:
    """A field is explained by a comment on its line, or right above the group of fields that it stands in."""
    explained = False
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif not line.strip() or line.strip() == "---":
            explained = False
        else:
            explained = explained or "#" in line
            assert explained, line


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(), feature_version=(3, 10)))
    assert docstring
    assert len(docstring) > 10


def tracked(*suffixes: str) -> Iterator[Path]:
    """Files of the repository's own folders."""
    own = (".ci", ".github", "config", "docs", "launch", "report", "scripts", "test", "timar_ros", "urdf")
    for folder in own:
        for base, folders, names in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name not in ("node_modules", "__pycache__")]
            yield from (Path(base, name) for name in names if name.endswith(suffixes))
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.name.endswith(suffixes))


def test_no_file_names_a_developers_machine() -> None:
    machine = re.compile(r"(?<![\w.])/(root|work|home/\w+|Users/\w+)/")
    found = [
        p for p in tracked(".py", ".md", ".yaml", ".yml", ".cfg", ".toml", ".txt") if machine.search(p.read_text())
    ]
    assert [p.name for p in found if p.name != Path(__file__).name] == []


@pytest.mark.parametrize("layout", ["lib/python3.12/site-packages", "local/lib/python3.10/dist-packages"])
def test_shared_files_are_found_where_installed(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / layout / "timar_ros" / "resources.py"
    installed = tmp_path / "share" / "timar_ros"
    (installed / "config").mkdir(parents=True)
    (installed / "package.xml").touch()
    (installed / "config" / "timar.yaml").touch()
    monkeypatch.setattr("timar_ros.resources.__file__", str(module))
    assert share("config", "timar.yaml") == installed / "config" / "timar.yaml"
    with pytest.raises(UserError, match=r"no 'config/nothing.yaml'"):
        share("config", "nothing.yaml")
    (installed / "package.xml").unlink()
    with pytest.raises(UserError, match="reinstall"):
        share("config")


def test_node_reference_is_up_to_date() -> None:
    """`python scripts/write_node_reference.py` writes it anew."""
    pytest.importorskip("rclpy", reason="the nodes' tables need rclpy")
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "write_node_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text()
    assert page == script.written(page)
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == nodes_with_main()


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    links = [(p, to) for p in pages for to in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", p.read_text())]
    assert not [(p.name, to) for p, to in links if "://" not in to and not (p.parent / to).exists()]
