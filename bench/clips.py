"""Every real clip through `maven predict`: what comes out, and the orders that must hold.

python bench/clips.py
"""

from __future__ import annotations

import itertools

import numpy as np

import maven
from machine import DATA, describe

SUFFIXES = (".mp4", ".mov", ".avi", ".mpg")
HAPPY = ("silent_happy_256", "silent_happyenglish_clip1")
UNHAPPY = ("silent_sadgirl_clip1", "silent_sad_emotion_clip1", "silent_furious_talk1_clip1")
ROUSED = ("silent_furious_talk1_clip1", "silent_fear_256")
SAD = ("silent_sadgirl_clip1", "silent_sad_emotion_clip1")


def main() -> None:
    """Print the tables; end with an error where an order does not hold."""
    print(describe())
    model = maven.load("mini")
    means = {}
    print("| clip | rows | people | face | speech | words | valence | arousal | notes |")
    print("|---|---|---|---|---|---|---|---|---|")
    for path in sorted(p for p in (DATA / "clips").iterdir() if p.suffix in SUFFIXES):
        analysis = maven.analyze(path, model, asr="none", offline=True)
        rows = analysis.frames
        assert (np.diff(rows.time_s) > 0).all(), f"times of {path.name} do not rise"
        means[path.stem] = (rows.valence.mean(), rows.arousal.mean())
        shares = " | ".join(
            f"{rows[name].mean():.2f}" for name in ("has_face", "has_speech", "has_text")
        )
        valence, arousal = ("" if np.isnan(v) else f"{v:+.2f}" for v in means[path.stem])
        print(
            f"| {path.name} | {len(rows)} | {len(analysis.tracks)} | {shares} |"
            f" {valence} | {arousal} | {'; '.join(analysis.notes)} |",
            flush=True,
        )
    wrong = 0
    for name, k, higher, lower in (("valence", 0, HAPPY, UNHAPPY), ("arousal", 1, ROUSED, SAD)):
        for one, other in itertools.product(higher, lower):
            right = means[one][k] > means[other][k]
            wrong += not right
            print(f"{'right' if right else 'WRONG'}: {name} of {one} above {other}"
                  f" ({means[one][k]:+.2f}, {means[other][k]:+.2f})")  # fmt: skip
    if wrong:
        raise SystemExit(f"{wrong} orders are wrong")


if __name__ == "__main__":
    main()
