"""Processes that open what others sent: what they may use, what they know, and that they end.

Such a process runs in a session of its own with a clean environment, under limits of memory, time
and file sizes that are never raised again, and ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

MEMORY_BYTES = 3 * 2**30  # of data, for the embedded model
LARGE_MEMORY_BYTES = 16 * 2**30  # for others
OPEN_FILES = 256
ENVIRONMENT = (  # that such a process is given; no proxies, no tokens
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT"),
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"),
    *("MAVEN_MODELS", "CUDA_VISIBLE_DEVICES"),
)
# Of the libraries that make threads of their own: OpenMP, OpenBLAS, MKL, numexpr.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def clean_environment(threads: int | None = None, temporary: Path | None = None) -> dict[str, str]:
    """What a process is given that opens what others sent.

    Args:
        threads: that libraries may make for one call.
        temporary: a folder for temporary files.
    """
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    # An empty part means the current folder; OpenCV leaves one when it is imported.
    libraries = [part for part in kept.pop("LD_LIBRARY_PATH", "").split(":") if part]
    if libraries:
        kept["LD_LIBRARY_PATH"] = ":".join(libraries)
    kept |= {"HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if threads is not None:
        kept |= dict.fromkeys(THREADS, str(threads))
    if temporary is not None:
        kept["TMPDIR"] = str(temporary)
    return kept


def start(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    errors: IO[bytes] | None = None,
    pipes: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start Python with arguments in a folder, as the leader of a session of its own.

    Its standard input stays open as long as this process lives; `errors` takes its standard error;
    `pipes` are descriptors that it is given beside.
    """
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        pass_fds=pipes,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that nobody has waited for yet, and all of its session's group."""
    if process.returncode is not None:
        return  # its number may be another's by now
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process has ended; its number stays its own until somebody waits for it."""
    if process.returncode is not None or not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # another thread has waited for it
        return True


def memory_bytes(model: str) -> int:
    """How much memory a process with such a model may use, where nobody says otherwise."""
    return MEMORY_BYTES if model == "mini" else LARGE_MEMORY_BYTES


def limit(memory_bytes: int, *, file_bytes: int | None = None, cpu_s: float | None = None) -> None:
    """Limit this process, and what it starts; limits never rise again.

    Args:
        memory_bytes: of data, anonymous and writable.
        file_bytes: of the largest file that it writes.
        cpu_s: of all processors together.
    """
    if os.name != "posix":
        return
    import resource

    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_DATA: memory_bytes,
    }
    if file_bytes is not None:
        wanted[resource.RLIMIT_FSIZE] = file_bytes
    if cpu_s is not None:
        wanted[resource.RLIMIT_CPU] = int(cpu_s)
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))


def limit_next(cpu_s: float, file_bytes: int) -> None:
    """Limit this process for its next task: so much more time, files so large.

    These are soft limits, which the process moves itself: they stop what hangs, also where nobody
    is left who would.
    """
    if os.name != "posix":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = {
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime + cpu_s) + 1,
        resource.RLIMIT_FSIZE: file_bytes,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, hard))


def cores() -> list[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(cores: Sequence[int]) -> None:
    """Have this process run on these processors only, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # they may have gone meanwhile
            os.sched_setaffinity(0, cores)


def speaker() -> Callable[..., None]:
    """Keep standard output for what is told; what libraries print goes to standard error.

    What is returned writes its keyword arguments as a line of JSON.
    """
    out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def say(**message: Any) -> None:
        with lock:
            out.write(json.dumps(message) + "\n")
            out.flush()

    return say


def hearer() -> IO[bytes]:
    """Keep standard input for what is asked; libraries that read it find its end."""
    asked = os.fdopen(os.dup(0), "rb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return asked


def end_with_parent(line: int = 0) -> None:
    """End this process and its children when the other end of a pipe is closed, as by a kill.

    Where the kernel can do it (Linux), it does, however busy this process is; elsewhere a thread.

    Args:
        line: the pipe's descriptor; nothing is ever written to it.
    """
    if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(line).st_mode):
        import fcntl

        fcntl.fcntl(line, fcntl.F_SETOWN, -os.getpgrp())  # the whole group
        fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([line], [], [], 0)[0]:  # it was closed before
            _end()
        return

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(line, 64):
                pass
        _end()

    threading.Thread(target=watch, daemon=True).start()


def _end() -> None:
    if os.name == "posix":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
