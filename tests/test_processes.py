"""Processes that a command starts end with it, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT

from dcn_study.errors import StudyError
from dcn_study.processes import apart

PROGRAM = """
import os, sys, time
from pathlib import Path
from dcn_study import cli
from dcn_study.processes import apart

def wait(name):
    Path(name, str(os.getpid())).touch()
    time.sleep(60)

if __name__ == "__main__":
    try:
        apart(wait, sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize(("how", "code"), [("SIGKILL", -9), ("SIGTERM", -15), ("SIGINT", 130)])
@pytest.mark.parametrize("to_all", [False, True])
def test_no_process_is_left(tmp_path, how, code, to_all):
    program, folder = tmp_path / "program.py", tmp_path / "processes"
    program.write_text(PROGRAM)
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, program, folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not list(folder.iterdir()):
        assert process.poll() is None
        time.sleep(0.02)
    (os.killpg if to_all else os.kill)(process.pid, getattr(signal, how))
    assert "Traceback" not in process.communicate(timeout=5)[1]  # until the last process has closed it
    assert process.returncode == code


def test_a_function_has_a_process_of_its_own():
    """Training makes TensorFlow deterministic for its whole process, which would show in the measurement after it."""
    assert apart(eval, "__import__('os').getpid()") != os.getpid()


def test_a_process_that_is_killed_is_one_line():
    with pytest.raises(StudyError, match="^its process was killed, as the system does when memory runs out$"):
        apart(os._exit, 9)
