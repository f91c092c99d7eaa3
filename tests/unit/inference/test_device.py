import onnxruntime as ort
import pytest

from app.errors import DeviceUnavailable
from app.inference import device
from app.inference.device import choose_device, count_gpus, cuda_problem

no_gpu = pytest.mark.skipif(count_gpus() > 0, reason="this machine has a GPU")


def test_the_cpu_can_always_be_chosen() -> None:
    assert choose_device("cpu") == "cpu"


@no_gpu
def test_without_a_gpu_auto_takes_the_cpu() -> None:
    assert choose_device("auto") == "cpu"


@no_gpu
def test_without_a_gpu_cuda_refuses_and_says_what_is_missing() -> None:
    with pytest.raises(DeviceUnavailable, match=r"FACEID_MODEL__DEVICE=cuda, but .*FACEID_MODEL"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("providers", "gpus", "says"),
    [
        (["CPUExecutionProvider"], 1, "install onnxruntime-gpu"),
        (["CUDAExecutionProvider"], -1, "no NVIDIA driver"),
        (["CUDAExecutionProvider"], 0, "sees no GPU"),
    ],
)
def test_every_reason_is_named(
    monkeypatch: pytest.MonkeyPatch, providers: list[str], gpus: int, says: str
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    monkeypatch.setattr(device, "count_gpus", lambda: gpus)
    assert says in (cuda_problem() or "")


@no_gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(),
    reason="this onnxruntime is a CPU build",
)
def test_a_missing_cuda_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "count_gpus", lambda: 1)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    assert "lib" in (cuda_problem() or "")
    assert ".[cuda]" in (cuda_problem() or "")


@no_gpu
def test_a_gpu_that_is_not_used_is_mentioned_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "count_gpus", lambda: 1)
    monkeypatch.setattr(device, "cuda_problem", lambda: "its libraries are missing")
    assert choose_device("auto") == "cpu"
    assert "its libraries are missing" in caplog.text
