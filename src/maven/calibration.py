"""The command that calibrates the intervals of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from maven.research import Device, Features, Offline, Split
from maven.terminal import Debug, check_folder, one_line_errors, progress_bar, refuse

Folder = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model folder; its config.json is changed.")
]


def calibrate(
    model: Folder,
    where: Features,
    split: Split = "val",
    nominal: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the frames, that intervals shall cover.")
    ] = 0.9,
    device: Device = "auto",
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Calibrate a model's intervals on labelled videos that no weight was fitted to.

    Ten videos at least, better sixty. Every table of the model has intervals from then on.
    """
    from maven.checkpoint import find, load_network, write_card
    from maven.datasets.affwild2 import SPLITS
    from maven.inference import answer
    from maven.intervals import coverage, fit, gather
    from maven.matching import clips_of

    check_folder(where)
    if split not in SPLITS:
        refuse(f"--split: got {split!r}; accepted: {', '.join(SPLITS)}")
    if not 0 < nominal < 1:
        refuse(f"--nominal: got {nominal:g}; accepted: above 0, below 1")
    with one_line_errors(debug), progress_bar(where.name) as report:
        folder = find(model)  # a copy of a hub's model is not ours to change
        found = load_network(folder, device=device, offline=offline)
        with clips_of(found, where, split, offline=offline, progress=report) as (clips, _):
            frames = gather(
                lambda features: answer(found.network, features, found.card.smoothing_s),
                ((clip.features, clip.labels) for clip in clips),
            )
        intervals = fit(frames, nominal)
        write_card(replace(found.card, intervals=intervals), folder)
    unmuted = frames.of(~frames.muted)
    covered = coverage(intervals, unmuted.va, unmuted.labels, unmuted.observed)["all"]
    print(
        f"Wrote {folder / 'config.json'}: intervals of {nominal:.0%} from {intervals.videos}"
        f" videos, mean width of valence {covered.width_valence:.2f}, of arousal"
        f" {covered.width_arousal:.2f}"
    )
