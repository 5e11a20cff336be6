#!/usr/bin/env python3
"""Makes a libtorch folder from the wheels on PyPI: `libtorch.py cpu|cuda FOLDER`.

Called by `cargo xtask libtorch` and by the Dockerfile, so that both have the same libraries. `cpu` makes what tch builds
and runs against; `cuda` makes only the libraries that the binary adds at run time when a GPU is asked for.

The `cpu` folder never holds libtorch_cuda.so: torch-sys would link against it, and a pod without a GPU would map a
gigabyte for nothing.
"""

import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

# tch 0.24.0 was generated from exactly this version.
TORCH = "2.11.0"

# wheel -> the libraries wanted from it. libtorch_cpu.so needs cudart and cupti even without a GPU.
CPU = {
    f"torch=={TORCH}": ["libtorch_cpu.so", "libc10.so", "libgomp*.so*"],
    "nvidia-cuda-runtime==13.0.96": ["libcudart.so.13"],
    "nvidia-cuda-cupti==13.0.85": ["libcupti.so.13"],
}

# The versions that torch's own metadata asks for. Left out: linear algebra (cusolver and libtorch_cuda_linalg, which
# libtorch only loads when a model solves or factors matrices on the GPU), Triton, Python.
CUDA = {
    f"torch=={TORCH}": ["libtorch_cuda.so", "libc10_cuda.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so"],
    "nvidia-cublas==13.1.0.3": ["libcublas.so.13", "libcublasLt.so.13"],
    "nvidia-cuda-nvrtc==13.0.88": ["libnvrtc.so.13", "libnvrtc-builtins.so.*"],
    "nvidia-cudnn-cu13==9.19.0.56": ["libcudnn*.so.9"],
    "nvidia-cufft==12.0.0.61": ["libcufft.so.12"],
    "nvidia-cufile==1.15.1.6": ["libcufile.so.0"],
    "nvidia-curand==10.4.0.35": ["libcurand.so.10"],
    "nvidia-cusparse==12.6.3.3": ["libcusparse.so.12"],
    "nvidia-cusparselt-cu13==0.8.0": ["libcusparseLt.so.0"],
    "nvidia-nccl-cu13==2.28.9": ["libnccl.so.2"],
    "nvidia-nvjitlink==13.0.88": ["libnvJitLink.so.13"],
    "nvidia-nvshmem-cu13==3.4.5": ["libnvshmem_host.so.3"],
}

PLATFORMS = ["2014", "_2_17", "_2_18", "_2_24", "_2_25", "_2_27", "_2_28"]


def download(wheel: str, into: str) -> pathlib.Path:
    """Fetches one wheel for the machine that the image runs on, whatever this Python's own version is."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--python-version=3.11", "--implementation=cp"]
    command += [f"--platform=manylinux{name}_x86_64" for name in PLATFORMS]
    subprocess.run([*command, "--dest", into, wheel], check=True)
    (file,) = pathlib.Path(into).glob("*.whl")
    return file


def extract(file: pathlib.Path, wanted: list[str], to: pathlib.Path) -> None:
    """Copies the wanted libraries (and torch's headers, for `cpu`) out of a wheel."""
    missing = set(wanted)
    with zipfile.ZipFile(file) as wheel:
        for name in wheel.namelist():
            path = pathlib.PurePosixPath(name)
            if name.endswith("/"):
                continue
            if path.parts[:2] == ("torch", "include") and "libtorch_cpu.so" in wanted:
                target = to.joinpath(*path.parts[1:])
            elif pattern := next((p for p in wanted if path.parent.name == "lib" and path.match(p)), None):
                missing.discard(pattern)
                target = to / "lib" / path.name
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(name) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    if missing:
        sys.exit(f"{file.name} lacks {', '.join(sorted(missing))}; correct the list in {__file__}.")


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in ("cpu", "cuda"):
        sys.exit("usage: libtorch.py cpu|cuda FOLDER")
    machine = f"{platform.system()}/{platform.machine()}".lower()
    if machine != "linux/x86_64":
        # The wheels would unpack without a word, and nothing built against them would link or start.
        sys.exit(
            f"The trainer is built for linux/amd64 and this machine is {machine}: build it in a container made with "
            "`--platform linux/amd64`, or on such a machine; the operator alone builds everywhere with `cargo build`."
        )
    cpu, to = sys.argv[1] == "cpu", pathlib.Path(sys.argv[2])
    to.mkdir(parents=True, exist_ok=True)
    for wheel, wanted in (CPU if cpu else CUDA).items():
        # One at a time, and each wheel goes as soon as it is unpacked: together they are gigabytes.
        with tempfile.TemporaryDirectory(dir=to) as folder:
            extract(download(wheel, folder), wanted, to)
    if cpu:
        # torch-sys says -ltorch, and here the CPU library is all of it. A linker script, so no compiler is needed.
        (to / "lib/libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
        # torch-sys compares this with the version it was generated from.
        (to / "build-version").write_text(f"{TORCH}\n")


if __name__ == "__main__":
    main()
