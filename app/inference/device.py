"""CUDA or CPU: decided once, said aloud, never changed behind the operator's back."""

import ctypes
import logging
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from app.errors import DeviceUnavailable

Device = Literal["cuda", "cpu"]

_log = logging.getLogger(__name__)


def choose_device(wanted: Literal["auto", "cuda", "cpu"]) -> Device:
    """Where the embedder runs.

    `auto` takes CUDA where it works and says so loudly where there is a GPU that does not.

    Raises:
        DeviceUnavailable: `cuda` was asked for and does not work; the message says why.
    """
    if wanted == "cpu":
        return "cpu"
    problem = cuda_problem()
    if problem is None:
        return "cuda"
    if wanted == "cuda":
        raise DeviceUnavailable(
            f"FACEID_MODEL__DEVICE=cuda, but {problem}. "
            "Mend that, or set FACEID_MODEL__DEVICE=cpu to run on the CPU on purpose."
        )
    if count_gpus() > 0:
        _log.warning("a GPU is present but not used: %s; running on the CPU", problem)
    return "cpu"


def cuda_problem() -> str | None:
    """What keeps ONNX Runtime from using CUDA here, or None."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return (
            f"the installed onnxruntime {ort.__version__} is a build without CUDA "
            "(install onnxruntime-gpu instead of onnxruntime)"
        )
    gpus = count_gpus()
    if gpus < 0:
        return "no NVIDIA driver is installed or passed into the container (libcuda not found)"
    if gpus == 0:
        return "the NVIDIA driver sees no GPU (check CUDA_VISIBLE_DEVICES and docker's --gpus)"
    ort.preload_dlls()
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(provider))
    except OSError as error:
        # The loader names the library it misses; other complaints are about symbols that
        # ONNX Runtime itself resolves later.
        if "cannot open shared object file" in str(error):
            return (
                f"a library of CUDA {ort.cuda_version} is missing ({error}); "
                "pip install -e '.[cuda]' in the project's folder brings it"
            )
    return None


def count_gpus() -> int:
    """GPUs the NVIDIA driver shows to this process; -1 without a driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
        return count.value
    return -1
