"""Tables and picture of an ablation against figures worked out by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from maven.ablate import GRIDS, Trial, Variant
from maven.render.ablation import draw, markdown, write_ablation

FIRST = Variant("default", "as it is")
OTHER = Variant("no refinement", "taken away", {"network": {"refine": False}})
THIRD = Variant("loss MSE alone", "changed", {"train": {"loss": "mse"}})


def scored(mean: float, apart: float = 0.1) -> dict[str, float]:
    return {"ccc_valence": mean - apart, "ccc_arousal": mean + apart, "ccc_mean": mean}


def trial(variant: Variant, seed: int, mean: float, smoothed: float | None = None) -> Trial:
    widths = {} if smoothed is None else {0.0: mean, 0.25: smoothed}
    return Trial(variant, seed, {"as trained": scored(mean)}, widths)


def failed(variant: Variant, seed: int, why: str = "loss nan") -> Trial:
    return Trial(variant, seed, failed=why)


def rows(table: str) -> list[list[str]]:
    """Cells of a Markdown table without its rule."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    assert len({len(row) for row in cells}) == 1
    return [row for row in cells if set("".join(row)) - set("-:")]


# --- the table ---------------------------------------------------------------------------------


def test_mean_spread_and_difference_to_the_first_row() -> None:
    """0.3, 0.4, 0.8: mean 0.5, squares 0.04 + 0.01 + 0.09 = 0.14, / 2 = 0.07, root 0.2646."""
    trials = [trial(FIRST, k, m) for k, m in enumerate((0.3, 0.4, 0.8))]
    trials += [trial(OTHER, k, m) for k, m in enumerate((0.2, 0.2, 0.26))]
    header, first, other = rows(markdown(trials))
    assert header[2:] == ["CCC valence", "CCC arousal", "mean", "against the first row"]
    assert first == [
        "as it is", "default", "0.400 ± 0.265", "0.600 ± 0.265", "0.500 ± 0.265", "+0.000",
    ]  # fmt: skip
    # (0.02, 0.02, 0.04): 0.0004 + 0.0004 + 0.0016 = 0.0024, / 2, root 0.0346
    assert other == [
        "taken away", "no refinement", "0.120 ± 0.035", "0.320 ± 0.035", "0.220 ± 0.035", "-0.280",
    ]  # fmt: skip


def test_of_one_seed_there_is_no_spread() -> None:
    _, first = rows(markdown([trial(FIRST, 0, -0.25)]))
    assert first[2:] == ["-0.350", "-0.150", "-0.250", "+0.000"]


def test_what_failed_is_listed_and_the_rest_stays() -> None:
    trials = [
        trial(FIRST, 0, 0.5), trial(FIRST, 1, 0.7),
        trial(OTHER, 0, 0.4), failed(OTHER, 1, "loss nan; no checkpoint"),
        failed(THIRD, 0), failed(THIRD, 1),
    ]  # fmt: skip
    text = markdown(trials)
    _, first, other, third = rows(text)
    assert first[4] == "0.600 ± 0.141"
    assert other[4:] == ["0.400", "-0.200"]  # of the seed that is there
    assert third[:3] == ["changed", "loss MSE alone", "failed"]
    assert text.splitlines()[-3:] == [
        "- no refinement, seed 1: loss nan; no checkpoint",
        "- loss MSE alone, seed 0: loss nan",
        "- loss MSE alone, seed 1: loss nan",
    ]


def test_without_the_first_row_there_is_nothing_to_compare_with() -> None:
    _, first, other = rows(markdown([failed(FIRST, 0), trial(OTHER, 0, 0.4)]))
    assert first[2] == "failed"
    assert other[4:] == ["0.400", ""]
    assert "failed" in markdown([failed(FIRST, 0)])


def test_smoothing_is_a_table_of_its_own() -> None:
    trials = [trial(FIRST, 0, 0.3, 0.5), trial(FIRST, 1, 0.5, 0.6), trial(OTHER, 0, 0.9, 0.9)]
    table = markdown(trials).split("\n\n")[1]
    assert rows(table)[1:] == [["0", "0.400 ± 0.141"], ["0.25", "0.550 ± 0.071"]]


# --- what a missing modality costs -------------------------------------------------------------


def modality_trials() -> list[Trial]:
    """Trained on everything: 0.6 and 0.7. A part of it missing, and trained without it:

    missing  a third     all         trained without
    visual   0.50, 0.54  0.20, 0.24  0.30, 0.30
    audio    0.60, 0.60  0.55, 0.57  0.58, 0.58
    text     0.62, 0.66  0.60, 0.60  failed
    """
    everything, *others = GRIDS["modalities"]
    missing = {
        "visual": ((0.50, 0.54), (0.20, 0.24)),
        "audio": ((0.60, 0.60), (0.55, 0.57)),
        "text": ((0.62, 0.66), (0.60, 0.60)),
    }
    without = {("audio", "text"): 0.30, ("visual", "text"): 0.58}
    trials = []
    for seed, mean in enumerate((0.6, 0.7)):
        scores = {"as trained": scored(mean)}
        for m, (third, gone) in missing.items():
            scores[f"without {m}"] = scored(gone[seed])
            scores[f"without a third of {m}"] = scored(third[seed])
        trials.append(Trial(everything, seed, scores))
    for variant in others:
        kept = tuple(variant.changes["modalities"])
        for seed in range(2):
            fails = kept == ("visual", "audio")
            one = failed(variant, seed) if fails else trial(variant, seed, without.get(kept, 0.1))
            trials.append(one)
    return trials


def test_gains_over_a_network_trained_without_the_modality() -> None:
    _, table, _ = markdown(modality_trials()).split("\n\n")
    header, face, voice = rows(table)  # words: there is nothing to compare with
    assert header[-2:] == ["a third: gain", "all: gain"]
    assert face == [
        "face", "0.520 ± 0.028", "0.220 ± 0.028", "0.300 ± 0.000", "+0.220", "-0.080",
    ]  # fmt: skip
    assert voice == [
        "voice", "0.600 ± 0.000", "0.560 ± 0.014", "0.580 ± 0.000", "+0.020", "-0.020",
    ]  # fmt: skip


def test_without_the_network_trained_on_everything_there_are_no_gains() -> None:
    trials = [replace(t, scores={}, failed="x") if t.seed < 2 else t for t in modality_trials()[:2]]
    text = markdown([*trials, *modality_trials()[2:]])
    assert "gain |" not in text


# --- files -------------------------------------------------------------------------------------


def test_a_row_a_trial_and_condition(tmp_path: Path) -> None:
    trials = modality_trials()
    paths = write_ablation(trials, tmp_path / "new" / "folder", "modalities")
    assert [path.name for path in paths] == ["ablation.md", "ablation.csv", "ablation.png"]
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())
    assert paths[0].read_text(encoding="utf-8") == markdown(trials)
    with paths[1].open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    expected = [
        (t.variant.name, str(t.seed), condition) for t in trials for condition in t.scores or [""]
    ]
    assert [(row["variant"], row["seed"], row["condition"]) for row in found] == expected
    first = found[0]
    assert first["group"] == "trained on"
    assert (first["ccc_valence"], first["ccc_arousal"]) == ("0.500000", "0.700000")
    assert (first["ccc_mean"], first["failed"]) == ("0.600000", "")
    lost = [row for row in found if row["failed"]]
    assert [row["variant"] for row in lost] == ["face + voice"] * 2
    assert {row["ccc_mean"] for row in lost} == {""}


def test_commas_in_a_failure_stay_in_their_cell(tmp_path: Path) -> None:
    (_, path, _) = write_ablation([failed(FIRST, 0, 'a, "b"\nc')], tmp_path, "x")
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["failed"] == 'a, "b"\nc'


# --- the picture -------------------------------------------------------------------------------


def components(seeds: int = 3) -> list[Trial]:
    random = np.random.default_rng(0)
    means = 0.55 - random.choice([0, 0.005, 0.05, 0.3, 0.6], len(GRIDS["components"]))
    return [
        trial(variant, seed, float(mean + 0.01 * random.normal()))
        for variant, mean in zip(GRIDS["components"], means, strict=True)
        for seed in range(seeds)
    ]


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_picture_has_a_sensible_size_and_nothing_is_cut_off(tmp_path: Path, seeds: int) -> None:
    draw(components(seeds), tmp_path / "a.png", "components")
    image = picture(tmp_path / "a.png")
    height_px, width_px, _ = image.shape
    assert width_px == 1200
    assert 700 < height_px < 1100
    for edge in (image[:, :3], image[:, -3:], image[:3], image[-3:]):
        assert (edge > 250).all()  # names and numbers end before it
    dark = np.asarray((image < 200).any(2))
    assert dark[:, : width_px // 5].any()
    assert dark[:, -width_px // 8 :].any()


def test_no_text_lies_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    boxes: list[tuple[str, list[float]]] = []
    save = Figure.savefig

    def spy(self: Figure, *arguments: object, **options: object) -> None:
        save(self, *arguments, **options)  # type: ignore[arg-type]
        self.draw_without_rendering()
        (axes,) = self.axes
        beyond = [
            label
            for label in axes.get_xticklabels()
            if not axes.get_xlim()[0] <= label.get_position()[0] <= axes.get_xlim()[1]
        ]
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            if text.get_text() and text.get_visible() and text not in beyond:
                box = text.get_window_extent()
                boxes.append((text.get_text(), [box.x0, box.y0, box.x1, box.y1]))

    monkeypatch.setattr(Figure, "savefig", spy)
    draw([*components(), failed(Variant("nothing", "changed"), 0)], tmp_path / "a.png", "title")
    texts = [text for text, _ in boxes]
    for variant in GRIDS["components"]:
        assert variant.name in texts
        assert variant.group in texts
    assert "failed" in texts
    assert sum("±" in text for text in texts) == len(GRIDS["components"]) + 1  # and their header
    for k, (one, (left, low, right, high)) in enumerate(boxes):
        for other, (left2, low2, right2, high2) in boxes[:k]:
            apart = right <= left2 or right2 <= left or high <= low2 or high2 <= low
            assert apart, (one, other)


def test_a_picture_of_failures_alone(tmp_path: Path) -> None:
    draw([failed(FIRST, 0), failed(OTHER, 0)], tmp_path / "a.png", "x")
    assert (picture(tmp_path / "a.png") < 200).any()
