"""The pages of a training step and of the closed forms' matrices: made from what their benchmarks write."""

import json

from glai_bench.clock import OURS
from glai_bench.ops import path_matrices_report
from glai_bench.steps import report as steps_report


def test_tables_say_what_is_missed(tmp_path):
    machine = {"processor": "A processor", "cpu_isa": "avx2", "torch": "2.0", "density": 0.5}
    step = {"directions": False, "shape": [512, 193, 50, 10], "target": 4.0}
    steps = [
        step | {"threads": 1, "microseconds": {OURS: 1000.4}, "times faster": 3.9, "step over its two products": 1.2},
        step | {"threads": 2, "microseconds": {OURS: 600.0}, "times faster": 4.1, "step over its two products": 1.4},
        {"directions": True, "shape": [1, 2, 3, 4], "target": None, "threads": 1, "microseconds": {OURS: 9.0},
         "times faster": 0.5},
    ]  # fmt: skip
    kernel = {"op": "path_kernel", "ours_ms": 20.0, "best": "addmm"}
    gram = {"op": "path_gram", "ours_ms": 30.0, "best": "syrk"}
    matrices = [
        kernel | {"case": "N=4096 units=1024 D=64 out=", "ratio": 7.5},
        kernel | {"case": "N=4096 units=1024 D=64", "ratio": 5.0},
        kernel | {"case": "N=1024 units=512 D=384", "ratio": 2.0},
        gram | {"case": "N=2048 P=70 D=49 density=0.5", "ratio": 2.5},
        gram | {"case": "N=2048 P=70 D=49 density=0.1", "ratio": 2.5},
    ]
    files = {
        "steps": {"machine": machine, "rows": steps},
        "paths": {"machine": machine | {"threads": 2, "quick": True}, "rows": matrices},
    }
    for name, report in (("steps", steps_report), ("paths", path_matrices_report)):
        (tmp_path / f"{name}.json").write_text(json.dumps(files[name]))
        report.main(["--results", str(tmp_path / f"{name}.json")])
    text = "".join((tmp_path / f"{name}.md").read_text() for name in files)
    for line in (
        "| (512,193,50,10), full paths | 1,000; **3.90** | 600; 4.10 | 4 | 1.20; **1.40** |",
        "| (1,2,3,4), directions | 9; 0.50 |  |  |  |",
        "| `path_kernel`, N=4096 units=1024 D=64 out= | 20.0 | 7.50 (addmm) | 7 |",
        "| `path_kernel`, N=4096 units=1024 D=64 | 20.0 | **5.00** (addmm) | 7 |",
        "| `path_kernel`, N=1024 units=512 D=384 | 20.0 | 2.00 (addmm) |  |",
        "| `path_gram`, N=2048 P=70 D=49 density=0.5 | 30.0 | **2.50** (syrk) | 3 |",
        "| `path_gram`, N=2048 P=70 D=49 density=0.1 | 30.0 | 2.50 (syrk) |  |",
    ):
        assert line in text
