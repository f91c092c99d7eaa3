"""Every call with every kind of key: what is refused is refused in the same words."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app import auth
from tests.service import JPEG, running

FACE = "00000000-0000-0000-0000-000000000000"

# Call to the scope it needs (None: open) and what it is about: the gallery in its query or path,
# all galleries, or none. A new route has to be entered here.
CALLS = {
    ("GET", "/health/live"): (None, "none"),
    ("GET", "/health/ready"): (None, "none"),
    ("GET", "/metrics"): ("metrics", "all"),
    ("POST", "/identify"): ("identify", "gallery"),
    ("POST", "/verify"): ("identify", "gallery"),
    ("POST", "/detect"): ("identify", "none"),
    ("POST", "/embed"): ("embed", "none"),
    ("GET", "/backup"): ("admin", "all"),
    ("GET", "/model"): ("admin", "all"),
    ("PUT", "/model/other"): ("admin", "all"),
    ("DELETE", "/model/other"): ("admin", "all"),
    ("POST", "/model/switch"): ("admin", "all"),
    ("GET", "/model/awaiting"): ("admin", "gallery"),
    ("GET", "/galleries"): ("admin", "all"),
    ("GET", "/galleries/{gallery}"): ("admin", "gallery"),
    ("PUT", "/galleries/{gallery}"): ("admin", "gallery"),
    ("GET", "/galleries/{gallery}/duplicates"): ("admin", "gallery"),
    ("GET", "/persons"): ("enrol", "gallery"),
    ("GET", "/persons/{person_id}"): ("enrol", "gallery"),
    ("PATCH", "/persons/{person_id}"): ("enrol", "gallery"),
    ("DELETE", "/persons/{person_id}"): ("enrol", "gallery"),
    ("GET", "/persons/{person_id}/export"): ("admin", "gallery"),
    ("GET", "/erasures"): ("admin", "all"),
    ("POST", "/purge"): ("admin", "all"),
    ("GET", "/persons/{person_id}/faces"): ("enrol", "gallery"),
    ("POST", "/persons/{person_id}/faces"): ("enrol", "gallery"),
    ("DELETE", "/persons/{person_id}/faces/{face_id}"): ("enrol", "gallery"),
}
NEEDING_A_KEY = sorted(call for call, (scope, _) in CALLS.items() if scope)


class Keys:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}

    def make(self, *scopes: str, galleries: tuple[str, ...] = ()) -> str:
        if (scopes, galleries) not in self._made:
            self._made[scopes, galleries] = auth.create(self.path, "test", scopes, galleries)[1]
        return self._made[scopes, galleries]

    def revoked(self) -> str:
        key, text = auth.create(self.path, "test", ["admin"])
        auth.revoke(self.path, key.id)
        return text

    def expired(self) -> str:
        past = datetime.now(UTC) - timedelta(seconds=1)
        return auth.create(self.path, "test", ["admin"], expires_at=past)[1]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, keys: Keys, hopper: bytes
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("store")
    with running(folder, auth={"keys_file": keys.path}) as client:
        enrolled = client.post(
            "/persons/grace/faces", content=hopper, headers=JPEG | bearer(keys.make("admin"))
        )
        assert enrolled.status_code == 201
        yield client
        kept = client.get("/persons/grace", headers=bearer(keys.make("admin")))
        assert kept.json()["face_count"] == 1, "something refused was done"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def call(
    client: httpx.Client,
    method: str,
    path: str,
    key: str | None = None,
    person_id: str = "nobody",
    gallery: str = "default",
) -> httpx.Response:
    url = path.format(person_id=person_id, face_id=FACE, gallery=gallery)
    headers = JPEG | (bearer(key) if key is not None else {})
    takes_gallery = CALLS[method, path][1] == "gallery" and "{gallery}" not in path
    params = {"gallery": gallery} if takes_gallery else {}
    return client.request(method, url, params=params, headers=headers)


def body(answer: httpx.Response) -> dict:
    problem = answer.json()
    assert problem.pop("request_id") == answer.headers["X-Request-ID"]
    return problem


def test_no_route_is_forgotten(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    described = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(described) | {("GET", "/metrics")} == set(CALLS)
    for call_, operation in described.items():
        if CALLS[call_][0] is None:
            assert "security" not in operation
        else:
            assert operation["security"] == [{"bearer": []}, {"apiKey": []}], call_
            assert {"401", "403", "408", "429"} <= set(operation["responses"]), call_
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["apiKey"]["in"], schemes["apiKey"]["name"]) == ("header", "X-API-Key")


@pytest.mark.parametrize(("method", "path"), NEEDING_A_KEY)
def test_without_a_valid_key(client: httpx.Client, keys: Keys, method: str, path: str) -> None:
    right = keys.make("admin")
    wrong = right[:-1] + ("a" if right[-1] != "a" else "b")
    unknown = f"faceid_{'0' * 12}_{'a' * 43}"
    answers = [
        call(client, method, path, key, person)
        for key in (None, "nonsense", wrong, unknown, keys.revoked(), keys.expired())
        for person in ("grace", "nobody")
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert [body(answer) for answer in answers] == [body(answers[0])] * len(answers)
    assert answers[0].json()["code"] == "unauthenticated"
    assert answers[0].headers["WWW-Authenticate"] == 'Bearer realm="faceid"'


@pytest.mark.parametrize(("method", "path"), NEEDING_A_KEY)
def test_with_a_key_of_another_scope(
    client: httpx.Client, keys: Keys, method: str, path: str
) -> None:
    needed = CALLS[method, path][0]
    others = [scope for scope in auth.SCOPES if scope not in {needed, "admin"}]
    answers = [
        call(client, method, path, keys.make(*scopes), person)
        for scopes in [*((scope,) for scope in others), tuple(others)]
        for person in ("grace", "nobody")
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert [body(answer) for answer in answers] == [body(answers[0])] * len(answers)
    assert answers[0].json()["code"] == "forbidden"


@pytest.mark.parametrize(("method", "path"), NEEDING_A_KEY)
def test_with_the_right_scope(client: httpx.Client, keys: Keys, method: str, path: str) -> None:
    needed, _ = CALLS[method, path]
    for scope in (needed, "admin"):
        answer = call(client, method, path, keys.make(scope))
        assert answer.status_code in {200, 404, 409, 415, 422}, answer.text


@pytest.mark.parametrize(("method", "path"), NEEDING_A_KEY)
def test_with_a_key_that_is_bound_to_galleries(
    client: httpx.Client, keys: Keys, method: str, path: str
) -> None:
    needed, about = CALLS[method, path]
    for scope in (needed, "admin"):
        key = keys.make(scope, galleries=("staff", "guests"))
        answers = [
            call(client, method, path, key, person, gallery)
            for person in ("grace", "nobody")
            for gallery in ("default", "visitors", "a+b")
        ]
        if about == "none":
            assert 403 not in {answer.status_code for answer in answers}
        else:
            assert {answer.status_code for answer in answers} == {403}
            assert [body(answer) for answer in answers] == [body(answers[0])] * len(answers)
        own = call(client, method, path, key, gallery="staff").status_code
        assert own == 403 if about == "all" else own in {200, 404, 409, 415, 422}


def test_a_second_gallery_in_the_query_opens_no_other(client: httpx.Client, keys: Keys) -> None:
    key = keys.make("enrol", galleries=("staff",))
    for query in ("gallery=staff&gallery=default", "gallery=default&gallery=staff"):
        assert client.get(f"/persons?{query}", headers=bearer(key)).status_code == 403
    assert client.get("/persons", headers=bearer(key)).status_code == 403, "default is not bound"


def test_both_headers_are_taken(client: httpx.Client, keys: Keys) -> None:
    key = keys.make("enrol")
    for headers in (
        bearer(key),
        {"Authorization": f"bearer  {key}"},
        {"X-API-Key": key},
        {"Authorization": "Basic eDp5", "X-API-Key": key},
    ):
        assert client.get("/persons", headers=headers).status_code == 200, headers
    assert client.get("/persons", params={"key": key}).status_code == 401, "not in an address"


def test_a_body_is_not_read_for_somebody_without_a_key(client: httpx.Client) -> None:
    def forever() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(1000)

    answer = client.post("/identify", content=forever(), headers=JPEG)
    assert answer.status_code == 401
    answer = client.post("/persons/grace/faces", content=bytes(40 << 20), headers=JPEG)
    assert answer.status_code == 401, "the client was not hung up on while it sent"


def test_keys_change_without_a_restart(client: httpx.Client, keys: Keys) -> None:
    key, text = auth.create(keys.path, "test", ["enrol"])
    assert client.get("/persons", headers=bearer(text)).status_code == 200
    _, new = auth.rotate(keys.path, key.id, timedelta(hours=1))
    for each in (text, new):
        assert client.get("/persons", headers=bearer(each)).status_code == 200
    auth.revoke(keys.path, key.id)
    assert client.get("/persons", headers=bearer(text)).status_code == 401
    assert client.get("/persons", headers=bearer(new)).status_code == 200


def test_who_guesses_is_slowed_down(client: httpx.Client, keys: Keys) -> None:
    key, text = auth.create(keys.path, "test", ["enrol"])
    guess = text[:-1] + ("a" if text[-1] != "a" else "b")
    answers = [client.get("/persons", headers=bearer(guess)) for _ in range(30)]
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) < 25
    slowed = answers[statuses.index(429)].headers
    assert slowed["RateLimit"].startswith('"guesses";r=0;t=')
    assert slowed["RateLimit-Policy"] == '"guesses";q=20;w=20'
    assert int(slowed["Retry-After"]) >= 1
    # Keys that were used before go on.
    assert client.get("/persons", headers=bearer(keys.make("enrol"))).status_code == 200
    auth.revoke(keys.path, key.id)


def test_metrics_and_docs_have_settings_of_their_own(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    settings = {"keys_file": keys.path, "metrics": "public", "docs": "key"}
    with running(tmp_path, auth=settings) as client:
        assert client.get("/metrics").status_code == 200
        for path in ("/docs", "/openapi.json"):
            assert client.get(path).status_code == 401
            for scope in auth.SCOPES:
                key = bearer(keys.make(scope, galleries=("staff",)))
                assert client.get(path, headers=key).status_code == 200
