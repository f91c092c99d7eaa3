"""A client that knows what the service has promised, and checks it."""

import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.abuse import calls

_SHARES = {
    "identify": 30,
    "create": 15,
    "delete": 12,
    "add_photos": 10,
    "patch": 10,
    "read": 10,
    "verify": 5,
    "delete_face": 4,
    "list": 4,
}
_MOST_PERSONS = 50


class Broken(AssertionError):
    """The service does not hold what it acknowledged, or holds what it should not."""


@dataclass
class _Known:
    """A person: the face id of each photo by its digest, and the metadata."""

    faces: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Unanswered:
    """What the person of the request without an answer may look like: these photos, this
    metadata, or (None) nobody."""

    person_id: str
    photos: tuple[frozenset[str] | None, ...]
    metadata: tuple[dict[str, int], ...]


class Ledger:
    """Mixed requests about persons of its own, and what must be stored because of them.

    Not for two threads at once. A request without an answer raises `httpx.TransportError`; its
    person may then be as before or as after it, never in between, which `check` looks at.

    Args:
        name: its persons' ids begin with it.
        seed: the same requests in the same order.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._chance = random.Random(seed)
        self._photos = calls.faces(200)
        self._persons: dict[str, _Known] = {}
        self._doubt: _Unanswered | None = None
        self._numbered = 0
        self.answers: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._persons)

    @property
    def in_doubt(self) -> bool:
        """Whether the last request that changes anything got no answer."""
        return self._doubt is not None

    def forget_one(self) -> str:
        """A person whom the caller deletes."""
        person_id = self._chance.choice(list(self._persons))
        del self._persons[person_id]
        return person_id

    def request(self, client: httpx.Client) -> None:
        """Send a request and note what its answer promises.

        Raises:
            Broken: any other answer than the one it must get.
            httpx.TransportError: no answer.
        """
        kind = self._chance.choices(list(_SHARES), list(_SHARES.values()))[0]
        if kind == "create" and len(self._persons) >= _MOST_PERSONS:
            kind = "delete"
        elif not self._persons:
            kind = "create"
        person_id = ""
        if kind == "create":
            self._numbered += 1
            person_id = f"{self._name}-{self._numbered}"
        else:
            person_id = self._chance.choice(list(self._persons))
        getattr(self, f"_{kind}")(client, person_id)
        self._doubt = None
        self.answers[kind] += 1

    def _create(self, client: httpx.Client, person_id: str) -> None:
        self._enrol(client, person_id, _Known(), None)

    def _add_photos(self, client: httpx.Client, person_id: str) -> None:
        known = self._persons[person_id]
        self._enrol(client, person_id, known, frozenset(known.faces))

    def _enrol(
        self, client: httpx.Client, person_id: str, known: _Known, before: frozenset[str] | None
    ) -> None:
        images = self._chance.sample(self._photos, self._chance.randint(1, 3))
        digests = [hashlib.sha256(image).hexdigest() for image in images]
        after = frozenset(known.faces) | frozenset(digests)
        self._doubt = _Unanswered(person_id, (before, after), (known.metadata,))
        answer = self._expect(calls.enrol(client, person_id, images), 201).json()
        ids = (face["face_id"] for face in answer["faces"])
        known.faces |= dict(zip(digests, ids, strict=True))
        self._persons[person_id] = known
        if answer["face_count"] != len(known.faces):
            raise Broken(f"{person_id}: {answer['face_count']} faces, not {len(known.faces)}")

    def _patch(self, client: httpx.Client, person_id: str) -> None:
        known = self._persons[person_id]
        patch = {f"key{self._chance.randrange(5)}": self._chance.randrange(10**6)}
        faces = (frozenset(known.faces),)
        self._doubt = _Unanswered(person_id, faces, (known.metadata, known.metadata | patch))
        answer = self._expect(calls.patch(client, person_id, patch), 200)
        known.metadata = known.metadata | patch
        if answer.json()["metadata"] != known.metadata:
            raise Broken(f"{person_id}: the metadata is not what was written")

    def _delete(self, client: httpx.Client, person_id: str) -> None:
        known = self._persons[person_id]
        faces = (frozenset(known.faces), None)
        self._doubt = _Unanswered(person_id, faces, (known.metadata,))
        self._expect(calls.delete(client, person_id), 200)
        del self._persons[person_id]
        self._expect(calls.person(client, person_id), 404)

    def _delete_face(self, client: httpx.Client, person_id: str) -> None:
        known = self._persons[person_id]
        if not known.faces:
            return
        digest = self._chance.choice(list(known.faces))
        before = frozenset(known.faces)
        self._doubt = _Unanswered(person_id, (before, before - {digest}), (known.metadata,))
        self._expect(calls.delete_face(client, person_id, known.faces[digest]), 204)
        del known.faces[digest]

    def _read(self, client: httpx.Client, person_id: str) -> None:
        answer = self._expect(calls.person(client, person_id), 200)
        self._compare(answer.json(), self._persons[person_id])

    def _identify(self, client: httpx.Client, _: str) -> None:
        self._expect(calls.identify(client, self._chance.choice(self._photos)), 200)

    def _verify(self, client: httpx.Client, person_id: str) -> None:
        expected = 200 if self._persons[person_id].faces else 404
        self._expect(calls.verify(client, person_id, self._chance.choice(self._photos)), expected)

    def _list(self, client: httpx.Client, _: str) -> None:
        self._expect(client.get("/persons"), 200)

    def check(self, client: httpx.Client) -> None:
        """Compare all that is stored of its persons with what was acknowledged.

        Raises:
            Broken: names who is lost, has come back or is half there.
        """
        stored = {
            person["person_id"]: person
            for person in calls.persons(client)
            if person["person_id"].startswith(f"{self._name}-")
        }
        self._settle(client, stored)
        if lost := self._persons.keys() - stored.keys():
            raise Broken(f"lost: {sorted(lost)}")
        if back := stored.keys() - self._persons.keys():
            raise Broken(f"deleted, and there again: {sorted(back)}")
        for person_id, known in self._persons.items():
            self._compare(stored[person_id], known)
            if self._faces(client, person_id) != known.faces:
                raise Broken(f"{person_id}: other faces than were enrolled")

    def _settle(self, client: httpx.Client, stored: dict[str, dict]) -> None:
        """Take note of what became of the request without an answer."""
        doubt, self._doubt = self._doubt, None
        if doubt is None:
            return
        person = stored.get(doubt.person_id)
        faces = None if person is None else self._faces(client, doubt.person_id)
        photos = None if faces is None else frozenset(faces)
        if photos not in doubt.photos:
            raise Broken(f"{doubt.person_id}: half of a request is stored")
        if person is None or faces is None:
            self._persons.pop(doubt.person_id, None)
            return
        if person["metadata"] not in doubt.metadata:
            raise Broken(f"{doubt.person_id}: metadata that nobody wrote")
        self._persons[doubt.person_id] = _Known(faces, person["metadata"])

    def _faces(self, client: httpx.Client, person_id: str) -> dict[str, str]:
        answer = self._expect(calls.person_faces(client, person_id), 200)
        return {face["image_sha256"]: face["face_id"] for face in answer.json()["faces"]}

    def _compare(self, person: dict, known: _Known) -> None:
        found = (person["face_count"], person["metadata"])
        if found != (len(known.faces), known.metadata):
            raise Broken(f"{person['person_id']}: {found}, not {len(known.faces), known.metadata}")

    @staticmethod
    def _expect(answer: httpx.Response, status: int) -> httpx.Response:
        if answer.status_code != status:
            raise Broken(
                f"{answer.request.method} {answer.request.url.path}: {answer.status_code}, "
                f"not {status}: {answer.text[:500]}"
            )
        return answer
