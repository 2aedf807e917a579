"""All figures of the program but those of batches in one run: one Markdown and one JSON file.

python bench/all.py -o FOLDER [--only NAME ...] [--quick]

The benches run one after the other, each in processes of its own: about an hour on two cores, most
of it two hours of video and the paper's encoders; `--quick` leaves out both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHES = {
    "start": ("start.py",),
    "predict": ("predict.py", "--long", "10", "101"),
    "stages": ("stages.py",),
    "live": ("live.py",),
    "look": ("look.py",),
    "serve": ("serve.py",),
    "paper": ("paper.py",),
}
QUICK = {"predict": ("predict.py", "--long", "10")}
SLOW = ("paper",)
PLAIN = {"network": ("network.py",), "training": ("training.py",)}  # these print Markdown only


def main() -> None:
    """Run the benches and write `bench.md` and `bench.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", nargs="*", default=[*BENCHES, *PLAIN], metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    text, figures = [], {}
    for name, (script, *options) in (BENCHES | (QUICK if given.quick else {}) | PLAIN).items():
        if name not in given.only or (given.quick and name in SLOW):
            continue
        record = given.out / f"{name}.json"
        wanted = [] if name in PLAIN else ["--json", str(record)]
        command = [sys.executable, str(HERE / script), *options, *wanted]
        print(f"{name} ...", file=sys.stderr, flush=True)
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        text.append(run.stdout if wanted else f"## {name}\n\n{run.stdout}")
        if wanted:
            figures[name] = json.loads(record.read_text())
            record.unlink()
    (given.out / "bench.md").write_text("\n\n".join(text))
    (given.out / "bench.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
