"""What the long runs do, for some seconds each."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvloop

from tests.abuse import calls, crash, disks, images, overload, schema, shutdown, soak, swap
from tests.abuse.load import NO_ANSWER, Load
from tests.abuse.service import PATIENT, Service, serving

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), **PATIENT) as service:
        yield service
        assert service.process.poll() is None
        log = service.log.read_text()
        assert "unexpected error" not in log, log


def test_made_up_requests_find_nothing_undocumented(service: Service, tmp_path: Path) -> None:
    report, output = schema.run(service, tmp_path, examples=1, seed=1, phases=["coverage"])
    assert report["failures"] == [], output
    assert report["errors"] == [], output
    assert report["test_cases"]["generated"] > 300


def test_mutated_images_are_answered_as_documented(service: Service) -> None:
    found = images.fuzz(service, range(200))
    assert found.wrong == []
    assert len(found.seconds) == 200


def test_mixed_requests_leave_nothing_behind(service: Service) -> None:
    found = soak.soak(service, requests=200, minutes=2, every=50)
    assert found.answers.total() == 200
    first, last = found.usage[0], found.usage[-1]
    # A connection or two may be on its way, and a thread of asyncio's not have been needed before.
    assert last.descriptors <= first.descriptors + soak.CLIENTS
    assert last.threads <= first.threads + 2


def test_what_is_too_much_is_refused_and_the_rest_answered(service: Service) -> None:
    async def overwhelm() -> tuple[set[int], int]:
        requests = [calls.identify_bytes(photo, service.authorization) for photo in calls.faces(20)]
        load = Load(service.address, requests)
        samples = await load.open(rate=500, seconds=2)
        after = await load.once()
        load.close()
        return {sample.status for sample in samples}, after.status

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        statuses, after = runner.run(overwhelm())
    assert statuses >= {200, 503}
    assert statuses <= {200, *overload.REFUSED}
    assert after == 200


def test_connections_that_say_nothing_keep_nobody_out(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    service = Service(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        service.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with contextlib.ExitStack() as silent:
        silent.callback(service.stop)
        for _ in range(400):
            silent.enter_context(socket.create_connection(service.address))
        assert httpx.get(f"{service.url}/health/ready").status_code == 200
        assert service.usage().descriptors > 400


def test_nothing_acknowledged_is_lost_and_nothing_deleted_comes_back(tmp_path: Path) -> None:
    service = Service(tmp_path)
    survived = crash.crash(service, rounds=3, seed=0, minutes=2)
    assert survived.rounds == 3
    assert survived.answers.total() >= survived.rounds
    assert service.audit_holds()


def test_who_was_let_in_before_the_end_is_answered(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as service,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        stopped = runner.run(shutdown.stop_under_load(service))
    statuses = [sample.status for sample in stopped.samples]
    assert statuses.count(200) > 0
    assert NO_ANSWER not in statuses
    assert stopped.slow == 200
    assert stopped.red < stopped.refused
    assert stopped.status == 0


@pytest.mark.skipif(not disks.can_mount(), reason="only root can mount a small disk")
@pytest.mark.parametrize("run", [disks.full_disk, disks.read_only_folder])
def test_a_disk_that_cannot_be_written_is_named_and_harms_nothing(
    tmp_path: Path, run: disks.Run
) -> None:
    run(tmp_path)


@pytest.mark.skipif(not disks.FAKE_CLOCKS, reason="no libfaketime (Debian: faketime)")
def test_a_clock_that_jumps_harms_nothing(tmp_path: Path) -> None:
    disks.clock_that_jumps(tmp_path)


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    outcomes, wrong = disks.damaged_store(tmp_path, damages=2, seed=0)
    assert wrong == []
    assert outcomes.total() == 2


def test_an_embedder_is_replaced_under_load_and_over_a_kill(tmp_path: Path) -> None:
    found = swap.swap(tmp_path, faces=40, seconds=1, **PATIENT)
    assert not found.failed
    assert set(found.others) <= {200, 201}
    assert found.resumed_at >= found.killed_at > 0
    assert found.acknowledged
    assert (found.lost, found.back, found.not_equal) == ([], [], 0)
