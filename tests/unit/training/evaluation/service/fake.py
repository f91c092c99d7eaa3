"""A service of made-up answers, and photos that say what they are to be."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

THRESHOLD = 0.401
TARGETS = {0.01: 0.0, 0.05: -0.05}
"""By how much the threshold for each target differs from the usual one."""
_PHOTO = re.compile(rb"\{.*?\}")


def write_photo(path: Path, name: str, likeness: float, **said: Any) -> None:
    """A photo of `name`.

    Args:
        likeness: similarity to the person if they are enrolled, otherwise to whoever is first.
        said: `face=False`, `rejected=CODE`, `before=N` persons more similar than the right one,
            `odd=True`: unlike the person's other photos.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, "likeness": likeness, "file": path.name, **said}))


class FakeService:
    """Speaks as much of the API as an evaluation needs.

    Attributes:
        galleries: photos by person by gallery.
        requests: method and path of everything that was asked.
        meddle: called with each request; may raise, or answer in its place.
    """

    def __init__(self) -> None:
        self.galleries: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.keys: set[str | None] = set()
        self.meddle: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.ready = {
            "model": "made-up", "calibration": "abc", "device": "cpu", "store": "embedded"
        }  # fmt: skip

    @property
    def persons(self) -> int:
        return sum(map(len, self.galleries.values()))

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path, params = request.url.path, request.url.params
        self.requests.append((request.method, path))
        self.keys.add(request.headers.get("x-api-key"))
        meddled = self.meddle(request)
        if meddled is not None:
            return meddled
        photos = [json.loads(found) for found in _PHOTO.findall(request.content)]
        gallery = self.galleries.setdefault(params.get("gallery", ""), {})
        parts = path.strip("/").split("/")
        match request.method, parts:
            case "GET", ["health", "ready"]:
                return httpx.Response(200, json=self.ready)
            case "GET", ["persons"]:
                return httpx.Response(200, json={"persons": [], "cursor": None})
            case "POST", ["persons", person_id, "faces"]:
                assert params["face"] == "central"
                assert params["on_duplicate"] == params["on_inconsistent"] == "allow"
                return self._enrol(gallery, person_id, photos)
            case "GET", ["persons", person_id, "faces"]:
                return httpx.Response(
                    200, json={"faces": [self._stored(photo) for photo in gallery[person_id]]}
                )
            case "DELETE", ["persons", person_id]:
                if gallery.pop(person_id, None) is None:
                    return problem(404, "person_not_found")
                return httpx.Response(200, json={})
            case "POST", ["identify"]:
                return self._identify(gallery, photos[0], params)
            case "GET", ["galleries", name, "duplicates"]:
                return self._duplicates(self.galleries[name], params)
        raise AssertionError(f"{request.method} {path}")

    def _enrol(
        self, gallery: dict[str, Any], person_id: str, photos: list[dict[str, Any]]
    ) -> httpx.Response:
        rejected = [
            {"index": i, "code": photo["rejected"], "detail": ""}
            for i, photo in enumerate(photos)
            if "rejected" in photo
        ]
        taken = [photo for photo in photos if "rejected" not in photo]
        if not taken:
            return problem(422, "no_face_enrolled", rejected=rejected)
        gallery.setdefault(person_id, []).extend(taken)
        return httpx.Response(201, json={"rejected": rejected})

    def _identify(
        self, gallery: dict[str, Any], photo: dict[str, Any], params: httpx.QueryParams
    ) -> httpx.Response:
        closed = params.get("mode") == "closed"
        target = float(params.get("target_fpir", 0.01))
        answer = {"gallery_size": len(gallery), "target_fpir": None if closed else target}
        if not photo.get("face", True):
            return httpx.Response(200, json={"faces": [], **answer})
        own = [id_ for id_, photos in gallery.items() if photos[0]["name"] == photo["name"]]
        others = [person_id for person_id in gallery if person_id not in own]
        before = photo.get("before", 0)
        order = (others[:before] + own + others[before:])[: int(params["limit"])]
        similarity = photo["likeness"]
        threshold = None if closed else THRESHOLD + TARGETS[target]
        matched = bool(order) and (threshold is None or similarity >= threshold)
        face = {
            "box": {"x": 0, "y": 0, "width": 9, "height": 9},
            "decision": "match" if matched else "unknown",
            "person_id": order[0] if matched else None,
            "similarity": similarity if order else None,
            "probability": similarity if closed and order else None,
            "threshold": threshold,
            "candidates": [{"person_id": person_id} for person_id in order],
        }
        return httpx.Response(200, json={"faces": [face], **answer})

    def _stored(self, photo: dict[str, Any]) -> dict[str, str]:
        digest = hashlib.sha256(json.dumps(photo).encode()).hexdigest()
        return {"face_id": f"{photo['name']}-{photo['file']}", "image_sha256": digest}

    def _duplicates(self, gallery: dict[str, Any], params: httpx.QueryParams) -> httpx.Response:
        """Two persons at a time; "anna again" is taken for "anna"."""
        persons = list(gallery.items())
        start = int(params.get("cursor", 0))
        duplicates, inconsistent = [], []
        for place in range(start, min(start + 2, len(persons))):
            person_id, photos = persons[place]
            for other_id, others in persons[:place]:
                names = photos[0]["name"], others[0]["name"]
                if min(names) + " again" == max(names):
                    duplicates.append({"person_ids": [person_id, other_id]})
            inconsistent += [
                {"person_id": person_id, "face_id": self._stored(photo)["face_id"]}
                for photo in photos
                if photo.get("odd")
            ]
        for found in duplicates + inconsistent:
            found |= {"similarity": 0.6, "threshold": 0.5}
        end = start + 2 >= len(persons)
        return httpx.Response(
            200,
            json={
                "duplicates": duplicates,
                "inconsistent": inconsistent,
                "scanned": min(2, len(persons) - start),
                "cursor": None if end else str(start + 2),
            },
        )


def problem(status: int, code: str, **more: Any) -> httpx.Response:
    document = {"status": status, "code": code, "detail": f"It is {code}.", **more}
    return httpx.Response(status, json=document)
