"""The API of ratings, through the whole application, against an answer that is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from fastapi.testclient import TestClient

from maven.datasets.affwild2 import read_labels
from maven.ratings import Floats
from maven.web.app import application
from maven.web.jobs import Jobs, Options
from maven.web.shelf import Shelf
from rated_clip import answer, frames_s, put_clip

LENGTH_S = 12.0


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path_factory.mktemp("ratings") / "data")
    yield shelf
    shelf.close()


@pytest.fixture(scope="module")
def client(shelf: Shelf) -> TestClient:
    options = Options()
    app = application(shelf, Jobs(shelf, options), options)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def clip(shelf: Shelf) -> str:
    return put_clip(shelf, LENGTH_S, people=2, name='a "clip" № 7.mp4')


def rating(
    rater: str = "Ada", person: int = 0, late_s: float = 0.0, times_s: Floats | None = None
) -> dict[str, Any]:
    times_s = np.arange(0, LENGTH_S, 0.03) if times_s is None else times_s
    valence, arousal = answer(times_s - late_s, person).T
    return {
        "rater": rater, "person": person, "time_s": times_s.tolist(),
        "valence": valence.tolist(), "arousal": arousal.tolist(),
    }  # fmt: skip


def post(client: TestClient, clip: str, content: dict[str, Any]) -> dict[str, Any]:
    answered = client.post(f"/api/clips/{clip}/ratings", json=content)
    assert answered.status_code == 201, answered.text
    saved: dict[str, Any] = answered.json()
    return saved


def labels(text: str, folder: Path) -> Floats:
    path = folder / "labels.txt"
    path.write_text(text, encoding="utf-8")
    return read_labels(path).astype(np.float64)


def test_a_rating_is_kept_and_given_back(client: TestClient, clip: str) -> None:
    saved = post(client, clip, rating("  Ада Lovelace "))
    assert saved["rater"] == "Ада Lovelace"
    assert saved["points"] == 400
    assert saved["rated_s"] == pytest.approx(11.97)
    listed = client.get(f"/api/clips/{clip}/ratings").json()["ratings"]
    assert listed == [saved]
    assert client.get(f"/api/clips/{clip}/ratings?person=1").json() == {"ratings": []}
    whole = client.get(f"/api/clips/{clip}/ratings/{saved['id']}").json()
    assert {name: whole[name] for name in saved} == saved
    np.testing.assert_allclose(whole["valence"], rating()["valence"], atol=5.1e-5)

    assert client.delete(f"/api/clips/{clip}/ratings/{saved['id']}").status_code == 204
    gone = client.delete(f"/api/clips/{clip}/ratings/{saved['id']}")
    assert (gone.status_code, gone.json()) == (404, {"detail": "there is no such rating"})
    assert client.get(f"/api/clips/{clip}/ratings").json() == {"ratings": []}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"rater": "a\tb"}, "rater is 'a\\tb'; accepted: 1 to 80 printable"),
        ({"rater": "x" * 81}, "accepted: 1 to 80 printable"),
        ({"rater": 7}, "rater: Input should be a valid string"),
        ({"person": 2}, "person is 2; accepted: 0 to 1"),
        ({"person": -1}, "person is -1; accepted: 0 or more"),
        ({"valence": [0.0, 1.5]}, "valence is 1.5 at a point; accepted: -1 to 1"),
        ({"arousal": [0.0]}, "arousal: List should have at least 2 items"),
        ({"arousal": [0.0, 0.1, 0.2]}, "need one shape (n,)"),
        ({"arousal": [0.0, "0.1"]}, "arousal.1: Input should be a valid number"),
        ({"time_s": [1.0, 0.5]}, "time_s must be finite and rise"),
        ({"time_s": [1.0, 1e9]}, "the clip from 0 to 11.96 s"),
        ({"time_s": [0.0] * 500_001}, "time_s: List should have at most 500000 items"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_rating_is_refused_in_one_line(
    client: TestClient, clip: str, change: dict[str, Any], detail: str
) -> None:
    given = {"rater": "a", "time_s": [0.0, 1.0], "valence": [0.0, 0.0], "arousal": [0.0, 0.0]}
    answered = client.post(f"/api/clips/{clip}/ratings", json=given | change)
    assert answered.status_code == 422
    assert detail in answered.json()["detail"]
    assert "\n" not in answered.json()["detail"]
    assert client.get(f"/api/clips/{clip}/ratings").json() == {"ratings": []}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[" * 100_000, b'{"rater": "a", "time_s": [0, NaN]}', b"\xff\xfe"],
)
def test_what_is_no_json_is_refused(client: TestClient, clip: str, body: bytes) -> None:
    answered = client.post(f"/api/clips/{clip}/ratings", content=body)
    assert answered.status_code == 422
    assert len(answered.json()["detail"].splitlines()) == 1


def test_too_large_a_body_is_refused(client: TestClient, clip: str) -> None:
    answered = client.post(f"/api/clips/{clip}/ratings", content=b" " * (17 * 2**20))
    assert answered.status_code == 413


def test_the_largest_rating_goes_in(client: TestClient, shelf: Shelf) -> None:
    long = put_clip(shelf, 62.0)
    times_s = np.round(np.arange(500_000) * 1.2e-4, 4)
    values = np.round(np.sin(times_s), 3).tolist()
    content = {"rater": "a", "time_s": times_s.tolist(), "valence": values, "arousal": values}
    assert post(client, long, content)["points"] == 500_000


def test_without_a_clip_or_its_result_there_is_no_rating(
    client: TestClient, shelf: Shelf, clip: str
) -> None:
    for method, path in (
        ("POST", "ratings"), ("GET", "ratings"), ("GET", "scores"), ("GET", "ratings/x"),
        ("GET", "ratings/x/affwild2"), ("GET", "ratings/mean/affwild2"), ("DELETE", "ratings/x"),
    ):  # fmt: skip
        answered = client.request(method, f"/api/clips/nowhere/{path}")
        assert answered.status_code == 404, path
    assert client.get(f"/api/clips/{clip}/ratings/mean/affwild2").status_code == 404
    assert client.get(f"/api/clips/{clip}/scores?person=2").status_code == 422
    shelf.change(clip, state="running")
    answered = client.post(f"/api/clips/{clip}/ratings", json=rating())
    assert (answered.status_code, answered.json()["detail"]) == (409, "this clip has no result yet")


def test_scores_know_who_rated_how_late(client: TestClient, clip: str) -> None:
    assert client.get(f"/api/clips/{clip}/scores").json() == {
        "person": 0, "ratings": [], "agreement": None,
    }  # fmt: skip
    post(client, clip, rating("exact"))
    post(client, clip, rating("late", late_s=1.2))
    post(client, clip, rating("other", person=1, late_s=0.5))
    constant = rating("constant")
    constant["valence"] = constant["arousal"] = [0.25] * len(constant["time_s"])
    post(client, clip, constant)
    found = client.get(f"/api/clips/{clip}/scores?person=0").json()
    exact, late, still = found["ratings"]
    assert exact["frames"] == len(frames_s(LENGTH_S)) - 3  # where there was an answer
    assert exact["ccc"] == pytest.approx({"valence": 1, "arousal": 1}, abs=1e-3)
    assert exact["lag_s"] == pytest.approx(0, abs=0.051)
    assert late["lag_s"] == pytest.approx(1.2, abs=0.051)
    assert late["lag_low_s"] <= late["lag_s"] <= late["lag_high_s"]
    assert late["ccc_at_lag"] > 0.995 > 0.8 > late["ccc_mean"]
    assert (still["lag_s"], still["ccc_mean"], still["ccc_at_lag"]) == (None, 0, None)
    (other,) = client.get(f"/api/clips/{clip}/scores?person=1").json()["ratings"]
    assert other["rater"] == "other"
    assert found["agreement"]["raters"] == ["exact", "late", "constant"]


def test_agreement_is_of_the_latest_of_each_rater(client: TestClient, clip: str) -> None:
    post(client, clip, rating("a", late_s=3.0))
    post(client, clip, rating("b"))
    post(client, clip, rating("a"))
    found = client.get(f"/api/clips/{clip}/scores").json()
    assert [r["latest"] for r in found["ratings"]] == [False, True, True]
    agreed = found["agreement"]
    assert agreed["raters"] == ["a", "b"]
    assert agreed["pairwise"][0][1] == pytest.approx({"valence": 1, "arousal": 1})
    assert agreed["mean_pairwise"]["valence"] == pytest.approx(1)
    assert agreed["valence"]["icc_single"] == pytest.approx(1)
    assert agreed["overlap_s"] == pytest.approx(LENGTH_S, abs=0.1)


def test_labels_are_a_line_a_frame_with_gaps(client: TestClient, clip: str, tmp_path: Path) -> None:
    times_s = np.concatenate((np.arange(1.0, 4.0, 0.03), np.arange(6.0, 9.0, 0.03)))
    saved = post(client, clip, rating("Ада/1", times_s=times_s))
    answered = client.get(f"/api/clips/{clip}/ratings/{saved['id']}/affwild2")
    assert answered.headers["content-type"] == "text/plain; charset=utf-8"
    kind, _, called = answered.headers["content-disposition"].partition("; filename*=UTF-8''")
    assert (kind, unquote(called)) == ("attachment", 'a "clip" № 7 Ада_1.txt')
    found, grid_s = labels(answered.text, tmp_path), frames_s(LENGTH_S)
    assert len(found) == len(grid_s)
    rated = ((grid_s >= 1) & (grid_s <= times_s[99])) | ((grid_s >= 6) & (grid_s <= times_s[-1]))
    np.testing.assert_allclose(found[rated], answer(grid_s)[rated], atol=2e-3)
    assert (found[~rated] == -5).all()
    shifted = client.get(f"/api/clips/{clip}/ratings/{saved['id']}/affwild2?shift=true")
    np.testing.assert_allclose(labels(shifted.text, tmp_path)[rated], found[rated], atol=0.05)


def test_the_mean_can_be_freed_of_delays(client: TestClient, clip: str, tmp_path: Path) -> None:
    post(client, clip, rating("a", late_s=1.0))
    post(client, clip, rating("b", late_s=2.0))
    address = f"/api/clips/{clip}/ratings/mean/affwild2?person=0"
    plain, free = client.get(address), client.get(f"{address}&shift=true")
    assert plain.headers["content-disposition"].endswith("%E2%84%96%207.txt")
    grid_s = frames_s(LENGTH_S)
    wanted = (answer(grid_s - 1.0) + answer(grid_s - 2.0)) / 2
    np.testing.assert_allclose(labels(plain.text, tmp_path)[:290], wanted[:290], atol=2e-3)
    held = grid_s < LENGTH_S - 2.2
    np.testing.assert_allclose(labels(free.text, tmp_path)[held], answer(grid_s)[held], atol=0.05)
    assert (labels(free.text, tmp_path)[-10:] == -5).all()


def test_the_description_names_all_routes(client: TestClient) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]
    rated = {path for path in paths if "ratings" in path or path.endswith("scores")}
    assert len(rated) == 5
    posted = paths["/api/clips/{clip_id}/ratings"]["post"]
    schema = posted["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) == {"rater", "time_s", "valence", "arousal"}
    assert json.dumps(posted["responses"]["201"])
