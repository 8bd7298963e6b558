"""iGTT over several seeds: the table of each, as mean and range.

    python benchmarks/igtt_seeds.py --workdir=runs/igtt -- --baselines \
        --config=configs/cell_igtt.py

Runs `experiments/igtt.py` with the flags after `--` and `--config.seed` 0, 1, ..., each
in WORKDIR/SEED, one after the other; what is finished there is not run again. Prints
the table in Markdown, and how much of the time making labels took.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("flags", nargs="*", help="of experiments/igtt.py, after --")
    return parser.parse_args()


def said(values: Sequence[float]) -> str:
    """Mean and range, where there is one."""
    mean = f"{sum(values) / len(values):.3f}"
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return mean if low == high else f"{mean} ({low} to {high})"


def main() -> None:
    """Runs and prints."""
    args = parse()
    script = ROOT / "experiments" / "igtt.py"
    found = []
    for seed in range(args.seeds):
        folder = args.workdir / str(seed)
        command = [sys.executable, script, f"--workdir={folder}", *args.flags]
        status = subprocess.call([*command, f"--config.seed={seed}"], cwd=ROOT)
        if status:  # the run has said why
            sys.exit(status)
        found.append(json.loads((folder / "results.json").read_text("utf-8")))
    print("\n| method | IoU, all pixels | mean per image | seeds |")
    print("|---|---|---|---|")
    for row in found[0]["table"]:
        same = [r for x in found for r in x["table"] if r["name"] == row["name"]]
        columns = [said([r[key] for r in same]) for key in ("iou", "mean_image_iou")]
        print(f"| {row['name']} | {' | '.join(columns)} | {len(same)} |")
    print(
        f"\nmaking labels: {said([x['time']['update_share'] for x in found])} of time"
    )


if __name__ == "__main__":
    main()
