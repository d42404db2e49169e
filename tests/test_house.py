"""The rooms of the package: what each may import, and what none may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import glai_native as glai

PACKAGE = Path(glai.__file__).parent
# From the top down; rooms of one floor do not know each other. Each imports what stands below it.
FLOORS = [
    ["cli", "federated"],
    ["training"],
    ["model"],
    ["solvers"],
    ["estimator"],
    ["structure"],
    ["ops"],
    ["gates"],
    ["machine", "data"],
]
ROOMS = [room for floor in FLOORS for room in floor]
FLOOR = {room: number for number, floor in enumerate(reversed(FLOORS)) for room in floor}
# Except for one arrow: the command that federates starts what it is named after.
MAY = {("cli", "federated")}
LINES = 420


def modules():
    """Dotted name (a package's own) to file, of all that the package holds."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name, path):
    """The package's modules that a module imports, anywhere in it, for types alone too."""
    known = modules()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target = whole if whole in known else node.module
                if target in known:
                    yield target


def room_of(name):
    return name.split(".")[1]


GRAPH = {name: set(imports(name, path)) - {name} for name, path in modules().items() if name != "glai_native"}


def test_the_package_holds_its_rooms_and_nothing_else():
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    extension = {name for name in found if name.startswith("_native.")}
    assert len(extension) <= 2  # the extension, and its stub
    assert found - extension == {*ROOMS, "__init__.py", "py.typed"}


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_imports_run_downwards(name):
    room = room_of(name)
    for target in GRAPH[name]:
        assert target != "glai_native", f"{name} imports through the front door"
        other = room_of(target)
        below = FLOOR[other] < FLOOR[room] or (room, other) in MAY
        assert other == room or below, f"{name} imports {target}, which does not stand below it"


def test_no_import_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, f"an import circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for target in sorted(GRAPH[name]):
            visit(target)
        path.pop()
        done.add(name)

    for name in sorted(GRAPH):
        visit(name)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_rooms_say_what_they_are_and_hand_out_nothing(path):
    (docstring,) = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert ast.literal_eval(docstring.value).strip()


def test_the_front_door_hands_out_what_type_checkers_see():
    block, _ = [
        node for node in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(node, ast.If)
    ]
    seen = {
        alias.name: node.module.removeprefix("glai_native.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == glai._HOME | {"distributed": "training"}
    assert sorted(glai.__all__) == sorted(seen)
    assert all(getattr(glai, name) is not None for name in glai.__all__)
    assert set(glai.__all__) <= set(dir(glai))


def test_no_such_name():
    with pytest.raises(AttributeError, match="module 'glai_native' has no attribute 'nothing'"):
        glai.nothing  # noqa: B018


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys; from glai_native.cli.main import _parser; _parser([]).format_help();"
        "print([name for name in ('torch', 'numpy', 'sklearn', 'rich') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["python", "csrc", "bench"])
def test_files_are_short(folder):
    root = PACKAGE.parent.parent / folder
    if not root.is_dir():
        pytest.skip("the package is installed: its sources are elsewhere")
    kinds = {".py", ".cpp", ".hpp", ".cu", ".cuh"}
    long = {
        str(path): lines
        for path in root.rglob("*")
        if path.suffix in kinds and (lines := len(path.read_text().splitlines())) > LINES
    }
    assert not long


def test_names_are_loaded_by_many_threads_at_once():
    code = """
import random, threading
import glai_native as glai

def load(seed):
    names = list(glai.__all__)
    random.Random(seed).shuffle(names)
    barrier.wait()
    for name in names:
        getattr(glai, name)

barrier = threading.Barrier(8)
threads = [threading.Thread(target=load, args=(seed,)) for seed in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sum(name in vars(glai) for name in glai.__all__) == len(glai.__all__))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("True\n", "")
