"""Prints what the guard and its peers take for one varied prompt of 560 characters, and for how many times as long."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
GROUP = "varied prompts of 560 characters"
LENGTH = 560


def prompts():
    """As benches/guard.rs cuts them."""
    file = pathlib.Path(os.environ["PALISADE_VECTORS"], "prompts/oasst_eval.jsonl")
    joined = "\n".join(json.loads(line)["text"] for line in file.read_text("utf-8").split("\n") if line)
    return [joined[at : at + LENGTH] for at in range(0, len(joined) - LENGTH + 1, LENGTH)]


def ours():
    """Microseconds, as criterion just measured them."""
    command = ["cargo", "bench", "--locked", "--features", "full,bpe,test-util", "--bench", "guard", "--"]
    subprocess.run([*command, f"{GROUP}/all"], cwd=ROOT, check=True, stdout=sys.stderr)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    estimates = json.loads((target / "criterion" / GROUP / "all/new/estimates.json").read_text())
    return estimates["median"]["point_estimate"] / 1000


def main():
    if not os.environ.get("PALISADE_VECTORS"):
        sys.exit("scripts/bench guard_peers: PALISADE_VECTORS names no folder")
    own = ours()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in prompts())
    run = [ROOT / "benches/peers/guard/run", "times"]
    times = json.loads(subprocess.run(run, input=lines, capture_output=True, encoding="utf-8", check=True).stdout)
    print(f"\n| what | µs | times as long |\n|---|---|---|\n| palisade, all that is built in | {own:.1f} | 1 |")
    for name, taken in sorted(times.items(), key=lambda pair: pair[1]):
        print(f"| {name} | {taken:.0f} | {taken / own:.1f} |")


if __name__ == "__main__":
    main()
