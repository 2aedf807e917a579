"""The reliability diagram: what is drawn is what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maven.intervals import Covered
from maven.render.reliability import reliability

SHARES = (0.5, 0.7, 0.9)


def measured() -> dict[float, dict[str, Covered]]:
    return {
        share: {
            "all": Covered(100, share + 0.01, share - 0.01, share, 1.1 * share),
            "observed visual+text": Covered(60, share, share - 0.1, 0.2 * share, share),
            "observed audio": Covered(40, share + 0.05, share, 0.3 * share, share),
            "label v+ a+": Covered(40, 0.1, 0.2, 0.3, 0.4),
        }
        for share in SHARES
    }


def test_all_frames_and_each_set_have_a_line_of_the_measured_shares() -> None:
    valence, arousal = reliability(measured()).axes
    for axes, side in ((valence, "valence"), (arousal, "arousal")):
        lines = {str(line.get_label()).split("  (")[0]: line for line in axes.get_lines()}
        named = {"all frames": "all", "face + words": "observed visual+text",
                 "voice": "observed audio"}  # fmt: skip
        assert {name for name in lines if not name.startswith("_")} == set(named)
        for label, name in named.items():
            expected = [getattr(measured()[share][name], side) for share in SHARES]
            np.testing.assert_allclose(np.asarray(lines[label].get_ydata(), float), expected)
            np.testing.assert_allclose(np.asarray(lines[label].get_xdata(), float), SHARES)


def test_the_legend_has_the_widths_at_ninety_percent() -> None:
    legend = reliability(measured()).axes[1].get_legend()
    assert legend is not None
    assert "all frames  (0.99)" in [text.get_text() for text in legend.get_texts()]


def test_a_set_that_was_not_seen_at_every_share_is_drawn_where_it_was() -> None:
    gappy = measured()
    del gappy[0.7]["observed audio"]
    lines = reliability(gappy).axes[0].get_lines()
    voice = next(line for line in lines if str(line.get_label()).startswith("voice"))
    np.testing.assert_allclose(np.asarray(voice.get_xdata(), float), (0.5, 0.9))


def test_the_picture_is_written_and_small(tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "reliability.png"
    reliability(measured(), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 150_000
    assert [p.name for p in path.parent.iterdir()] == ["reliability.png"]


def test_nothing_to_draw_is_refused() -> None:
    for nothing in ({}, {0.9: {}}):
        with pytest.raises(ValueError, match="needs coverage"):
            reliability(nothing)
