"""The guard: who may ask, how much may be sent, what every answer carries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from maven.web import guard
from maven.web.guard import Guard

HERE = "http://127.0.0.1:8700"
TOKEN = "correct-horse-battery"


async def page(request: Request) -> Response:
    return JSONResponse({"query": dict(request.query_params), "got": len(await request.body())})


async def fault(request: Request) -> Response:
    raise RuntimeError("secret of the inside")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


def app(token: str | None = None, hosts: tuple[str, ...] = ()) -> Starlette:
    routes = [
        Route("/api/fault", fault),
        WebSocketRoute("/api/live", talk),
        Route("/{path:path}", page, methods=["GET", "POST", "DELETE"]),
    ]
    made = Starlette(routes=routes)
    made.add_middleware(Guard, hosts=hosts, token=token, upload_bytes=100)
    return made


def client(token: str | None = None, hosts: tuple[str, ...] = (), base: str = HERE) -> TestClient:
    return TestClient(app(token, hosts), base, follow_redirects=False)


@pytest.fixture
def ours() -> TestClient:
    return client()


@pytest.mark.parametrize("host", ["127.0.0.1:8700", "localhost:8700", "LOCALHOST:8700"])
def test_names_of_the_loopback_are_served(ours: TestClient, host: str) -> None:
    assert ours.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8700", "127.0.0.1:80", "127.0.0.1", "", "10.0.0.7:8700",
     "localhost.evil.example:8700", "127.0.0.1:8700@evil.example", "me@127.0.0.1:8700",
     "127.0.0.1:x", "[::1"],
)  # fmt: skip
def test_other_names_are_not(ours: TestClient, host: str) -> None:
    answer = ours.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["detail"]


def test_the_address_itself_and_names_that_are_allowed_are_served() -> None:
    there = client(hosts=("lab.example", "box:9000"), base="http://10.0.0.7:8700")
    for host in ("10.0.0.7:8700", "lab.example", "Lab.example:8443", "box:9000"):
        assert there.get("/", headers={"host": host}).status_code == 200, host
    for host in ("10.0.0.8:8700", "box:9001", "box"):
        assert there.get("/", headers={"host": host}).status_code == 421, host


CROSS = [
    {"origin": "http://evil.example"},
    {"origin": "http://localhost:3000"},
    {"origin": "http://localhost:8700"},  # another origin than 127.0.0.1
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]
OWN: list[dict[str, str]] = [
    {},
    {"origin": HERE},
    {"origin": HERE, "sec-fetch-site": "same-origin"},
]


@pytest.mark.parametrize("headers", CROSS)
def test_pages_of_other_sites_change_nothing(ours: TestClient, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/api/clips"), ("DELETE", "/api/clips/x"), ("POST", "/")):
        answer = ours.request(method, path, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.json()["detail"]
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        ours.websocket_connect(f"ws{HERE[4:]}/api/live", headers=headers),
    ):
        pass
    assert refused.value.code == 1008


@pytest.mark.parametrize("headers", OWN)
def test_our_own_pages_and_programs_do(ours: TestClient, headers: dict[str, str]) -> None:
    assert ours.post("/api/clips", headers=headers).status_code == 200
    with ours.websocket_connect(f"ws{HERE[4:]}/api/live", headers=headers) as socket:
        assert socket.receive_text() == "hello"


def test_links_from_elsewhere_open_pages_but_reach_no_data(ours: TestClient) -> None:
    elsewhere = {"sec-fetch-site": "cross-site"}
    assert ours.get("/clips/x", headers=elsewhere).status_code == 200
    assert ours.get("/api/clips", headers=elsewhere).status_code == 403


def test_every_answer_carries_the_headers(ours: TestClient) -> None:
    answers = [
        ours.get("/"), ours.get("/api/clips"), ours.get("/", headers={"host": "evil.example"}),
        ours.get("/api/fault"), ours.post("/x", content=b"x" * (guard.BODY_BYTES + 1)),
        client(TOKEN).get("/"), client(TOKEN).get(f"/?token={TOKEN}"),
    ]  # fmt: skip
    assert [a.status_code for a in answers] == [200, 200, 421, 500, 413, 401, 303]
    for answer in answers:
        for name, value in guard.HEADERS.items():
            assert answer.headers[name] == value
        assert "server" not in answer.headers
    assert "script-src 'self'" in guard.POLICY
    assert "unsafe" not in guard.POLICY
    assert answers[1].headers["cache-control"] == "no-store"


def test_a_fault_says_nothing_outside_and_all_on_stderr(
    ours: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ours.get("/api/fault")
    assert (answer.status_code, answer.json()) == (500, {"detail": "internal error"})
    assert "RuntimeError: secret of the inside" in capsys.readouterr().err


def test_bodies_end_at_their_limit_whatever_they_declare(ours: TestClient) -> None:
    def pieces(n: int) -> Iterator[bytes]:
        for _ in range(n):
            yield b"x" * 10

    assert ours.post("/api/clips", content=b"x" * 100).json()["got"] == 100
    assert ours.post("/api/clips", content=pieces(10)).json()["got"] == 100
    for content in (b"x" * 101, pieces(11)):
        answer = ours.post("/api/clips", content=content)
        assert answer.status_code == 413
        assert "too large; accepted: up to" in answer.text
    assert ours.post("/api/other", content=b"x" * 200).status_code == 200
    assert ours.post("/x", headers={"content-length": "-5"}).status_code == 413


def test_a_body_of_which_nothing_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "STALLED_S", 0.05)
    parts = [{"type": "http.request", "body": b"x", "more_body": True}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not parts:
            await asyncio.sleep(60)
        return parts.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/x", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost:8700")], "server": ("127.0.0.1", 8700), "scheme": "http",
    }  # fmt: skip
    asyncio.run(app()(scope, receive, send))
    assert sent[0]["status"] == 408
    assert b"nothing came for 0.05 s" in sent[1]["body"]


def test_a_token_is_asked_of_everything() -> None:
    closed = client(TOKEN)
    for path in ("/", "/api/clips", "/static/base.css", "/clips/x?token=wrong", "/?token="):
        assert closed.get(path).status_code == 401, path
    with pytest.raises(WebSocketDisconnect), closed.websocket_connect(f"ws{HERE[4:]}/api/live"):
        pass
    wrong = {"authorization": "Bearer " + TOKEN[:-1]}
    assert closed.get("/", headers=wrong).status_code == 401
    assert closed.get("/", headers={"cookie": "maven_8700=;;==x"}).status_code == 401
    assert (
        closed.get("/", headers=[(b"authorization", "Bearer \u00fc".encode())]).status_code == 401
    )


def test_a_program_shows_the_token_as_a_bearer() -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert client(TOKEN).get("/api/clips", headers=bearer).status_code == 200
    with client(TOKEN).websocket_connect(f"ws{HERE[4:]}/api/live", headers=bearer) as socket:
        assert socket.receive_text() == "hello"


def test_a_browser_brings_it_once_in_the_address_and_keeps_it_as_a_cookie() -> None:
    browser = client(TOKEN)
    entered = browser.get(f"/compare?ids=a%20b&token={TOKEN}&people=1")
    assert entered.status_code == 303
    assert entered.headers["location"] == "/compare?ids=a+b&people=1"
    for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert part in entered.headers["set-cookie"]
    assert browser.get("/").status_code == 200  # the client keeps cookies as a browser does
    with browser.websocket_connect(f"ws{HERE[4:]}/api/live") as socket:
        assert socket.receive_text() == "hello"
    assert client(TOKEN).get(f"/api/clips?token={TOKEN}").status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "/%0d%0aSet-Cookie:x=1"])
def test_the_way_in_leads_nowhere_else(path: str) -> None:
    answer = client(TOKEN).get(f"{HERE}{path}?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/")
    assert answer.headers["location"][1:2] not in ("/", "\\")
    assert "\n" not in answer.headers["location"]


@pytest.mark.parametrize("other", ['foo={"a":1}; ', "flag; ", "a[b]=1; ", "x/y=1; "])
def test_cookies_of_others_on_this_machine_do_not_lock_one_out(other: str) -> None:
    closed = client(TOKEN)
    assert closed.get("/", headers={"cookie": f"{other}maven_8700={TOKEN}"}).status_code == 200
    assert closed.get("/", headers={"cookie": f"{other}maven_8700=x"}).status_code == 401


def test_an_origin_that_is_none_is_refused(ours: TestClient) -> None:
    refused = ours.post("/", headers={"origin": "http://["})
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "asked for by the page of another site",
    )
