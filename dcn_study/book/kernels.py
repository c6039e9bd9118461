"""Kernels forked from a process that has loaded the libraries, so that no page waits for imports.

A forked kernel is as isolated as one that is started by a command. TensorFlow has computed nothing before the fork.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

__all__ = ["FORKED", "forked"]

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["dcn_study.book.preloaded"])


def forked(log: Path) -> type[AsyncKernelManager]:
    """Returns the manager of a kernel that is forked.

    Args:
        log: where the standard error of the kernel's process goes.
    """

    class ForkedKernelManager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
            assert isinstance(self.provisioner, LocalProvisioner)
            kernel = Kernel(kernel_cmd[kernel_cmd.index("-f") :], kw["env"], log)
            kernel.start()
            self.provisioner.process = kernel  # type: ignore[assignment]  # it has what is used of `Popen`
            self.provisioner.pid = self.provisioner.pgid = kernel.pid

    return ForkedKernelManager


class Kernel(ForkServerProcess):
    """A kernel's process, with what a provisioner expects of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        super().__init__()
        self.arguments, self.environment, self.log_path = list(arguments), dict(environment), log

    def run(self) -> None:
        from ipykernel.kernelapp import IPKernelApp

        os.setsid()  # so that a signal also reaches the processes that the kernel starts
        with self.log_path.open("w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 2)
        os.environ.clear()
        os.environ.update(self.environment)
        # It ends with the process from which it was forked.
        kernel = IPKernelApp.instance()
        kernel.initialize([*self.arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])
        assert kernel.shell is not None
        kernel.shell.enable_matplotlib("inline")  # which a kernel does when it loads Matplotlib, here loaded before
        kernel.start()

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        if self.pid is not None and self.poll() is None:
            os.kill(self.pid, number)
