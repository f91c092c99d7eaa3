"""The HTTP API as the commands see it: over the network, or inside this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from urllib.parse import quote

import httpx

# With the pauses between them: half a minute for a busy service, some seconds for a lost one.
_TRIES = 8
_RECONNECTS = 5
_LONGEST_PAUSE = 30.0
# A photo may wait behind many others; a connection is there at once or not at all.
_TIMEOUT = httpx.Timeout(120, connect=10, pool=None)
# Between two pieces of a backup the service may look through all of a large store.
_DOWNLOAD_TIMEOUT = httpx.Timeout(1800, connect=10)
_LIMITS = httpx.Limits(max_connections=None)


class Refused(Exception):
    """The service answered with an error that no repetition will mend.

    Attributes:
        problem: RFC 9457 members; at least `code` and `detail`.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{problem['detail']} ({problem['code']})")
        self.problem = problem
        self.code: str = problem["code"]
        self.detail: str = problem["detail"]


class Unreachable(Exception):
    """There is no service, or none that gets round to us."""


class Unknown(Unreachable):
    """The service does not know our key; no other call will fare better."""


class Service:
    """A service, or one gallery of it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._answered = False

    async def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int | float | None] | None = None,
        images: Mapping[str, bytes] | Sequence[tuple[str, bytes]] | None = None,
        body: bytes | None = None,
    ) -> dict[str, Any]:
        """One request, repeated while the service is busy or the connection breaks.

        Args:
            params: a value of None is left out.
            images: by field, which may come several times.
            body: instead of images, as it is.

        Raises:
            Refused: it was answered with an error.
            Unreachable: it was not answered, or 429 or 503 to the last.
            Unknown: without a valid API key.
        """
        given = {name: value for name, value in (params or {}).items() if value is not None}
        kind = None if body is None else {"Content-Type": "application/octet-stream"}
        wait = 0.0
        for attempt in range(_TRIES):
            await asyncio.sleep(wait)
            try:
                answer = await self._http.request(
                    method, path, params=given, files=images, content=body, headers=kind
                )
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                # A service that was there may be restarting; one that never was is not.
                if not self._answered or attempt >= _RECONNECTS:
                    raise self._unreachable(error) from None
                wait = pause(attempt, None)
                continue
            except (httpx.RequestError, httpx.InvalidURL) as error:
                raise self._unreachable(error) from None
            self._answered = True
            if answer.status_code not in {429, 503}:
                return self._read(answer)
            wait = pause(attempt, answer.headers.get("retry-after"))
        raise Unreachable(f"Given up after {_TRIES} tries: {_problem(answer)['detail']}")

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """The body of one answer, piece by piece.

        Raises:
            Refused, Unknown, Unreachable: the last also where the answer breaks off.
        """
        try:
            async with self._http.stream("GET", path, timeout=_DOWNLOAD_TIMEOUT) as answer:
                if not answer.is_success:
                    await answer.aread()
                    self._raise(answer)
                async for piece in answer.aiter_bytes():
                    yield piece
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        if not answer.is_success:
            self._raise(answer)
        try:
            document: dict[str, Any] = answer.json()
        except ValueError:
            raise Unreachable(f"What answers at {self._http.base_url} is not faceid.") from None
        return document

    def _raise(self, answer: httpx.Response) -> NoReturn:
        if answer.status_code == 401:
            raise Unknown("The service wants a valid API key: set FACEID_API_KEY, or give --key.")
        raise Refused(_problem(answer))

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"No service answers at {self._http.base_url} ({str(error) or type(error).__name__}). "
            "Start one with `faceid serve` or name another with --url; most commands of `faceid` "
            "also do without one, with --local."
        )


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and {"code", "detail"} <= document.keys():
        return document
    # Not ours: a proxy's page, or another service.
    return {
        "code": f"http_{answer.status_code}",
        "detail": f"{answer.url} answered {answer.status_code} {answer.reason_phrase}.",
    }


def person_path(person_id: str) -> str:
    return f"/persons/{quote(person_id, safe='')}"


def pause(attempt: int, retry_after: str | None) -> float:
    """Seconds to wait after try number `attempt` (from 0): never less than the service asks."""
    asked = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    return min(max(asked, 0.25 * 2.0**attempt), _LONGEST_PAUSE)


@asynccontextmanager
async def connect(
    url: str, local: bool, gallery: str | None, key: str | None = None
) -> AsyncIterator[Service]:
    """
    Args:
        gallery: a parameter of every call; None: of none.
        key: the API key to present.
        local: run the whole service inside this process, on the embedded store, instead
            of asking the one at `url`: the same code on the same path.

    Raises:
        StartupError: with `local`, what keeps the service from starting.
    """
    params = {} if gallery is None else {"gallery": gallery}
    if not local:
        try:
            http = httpx.AsyncClient(
                base_url=url,
                params=params,
                headers={"X-API-Key": key} if key else None,
                timeout=_TIMEOUT,
                limits=_LIMITS,
            )
        except httpx.InvalidURL as error:
            raise Unreachable(f"--url {url} is not an address: {error}.") from None
        except UnicodeEncodeError:
            raise Unreachable("What --key (or FACEID_API_KEY) says is not an API key.") from None
        async with http:
            yield Service(http)
        return

    from app.logs import configure_logging
    from app.main import create_app
    from app.settings import AuthSettings, load_settings

    configure_logging("WARNING")
    # Who may open the store's folder needs no key for what is in it.
    app = create_app(load_settings().model_copy(update={"auth": AuthSettings(disabled=True)}))
    # An unexpected error is answered 500 here as well, not raised through the transport.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", params=params) as http,
    ):
        yield Service(http)
