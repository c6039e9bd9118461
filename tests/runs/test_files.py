import contextlib
import os
import re
import subprocess
import sys
import threading

import pytest
from helpers import ROOT

from dcn_study.errors import LockedError
from dcn_study.runs import files
from dcn_study.runs.files import locked, project_root, replacing, temporary

KILLED = """
import os, signal, sys
from pathlib import Path
from dcn_study.runs.files import {how}
with {how}(Path(sys.argv[1])) as path:
    {begin}
    os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize("how", ["replacing", "temporary"])
@pytest.mark.parametrize("begin", ["path.write_text('half')", "path.unlink(missing_ok=True); path.mkdir()"])
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_what_a_killed_process_left_goes_with_the_next_of_that_name(tmp_path, how, begin, signal):
    target = tmp_path / "cnn-1a2b.ipynb"
    program = KILLED.format(how=how, begin=begin, signal=signal)
    subprocess.run([sys.executable, "-c", program, str(target)], check=False, cwd=ROOT)
    other = tmp_path / ".cnn-1a2b.ipynb.another host@1.0.ipynb"
    other.touch()
    (left,) = set(tmp_path.iterdir()) - {other}
    assert left.name.endswith(".ipynb")
    with replacing(tmp_path / "cnn.ipynb") as path:  # of another name
        path.write_text("whole")
    assert left.exists()
    with temporary(target) as path:
        path.touch()
        assert not left.exists()
        with temporary(target) as second:  # this process is not dead
            assert path.exists()
            assert second != path
    assert {each.name for each in tmp_path.iterdir()} == {other.name, "cnn.ipynb"}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_written_files_have_the_permissions_of_other_new_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file.json") as path:
            path.write_text("text")
        assert (tmp_path / "file.json").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    (tmp_path / "file.json").write_text("former")
    with contextlib.suppress(KeyError), replacing(tmp_path / "file.json") as path:
        path.write_text("half")
        raise KeyError
    assert [each.read_text() for each in tmp_path.iterdir()] == ["former"]


@pytest.mark.parametrize("use", [replacing, lambda path: locked(path, "it")])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, use):
    (tmp_path / "runs").touch()
    for path in (tmp_path / "runs" / "a.json", tmp_path / "runs" / "in" / "a.json"):
        message = f"{path.parent} must be a folder. Received: a file, there or above it"
        with pytest.raises(OSError, match=f"^{re.escape(message)}$"), use(path):
            pass


def test_the_project_is_the_clone_above(project, monkeypatch):
    (project / "in" / "it").mkdir(parents=True)
    monkeypatch.chdir(project / "in" / "it")
    assert project_root() == project


def test_a_lock_says_who_holds_it_as_long_as_somebody_does(tmp_path):
    with contextlib.suppress(KeyError), locked(tmp_path / "run.lock", "it"):
        assert (tmp_path / "run.holder").read_text().startswith(f"process {os.getpid()} on ")
        raise KeyError
    assert [each.name for each in tmp_path.iterdir()] == ["run.lock"]


def test_a_lock_of_another_host_names_it_and_what_that_host_left_does_not_lock(tmp_path):
    path, holder = tmp_path / "run.lock", tmp_path / "run.holder"
    holder.write_text("process 1 on elsewhere, since 2026-01-02T03:04:05+00:00")  # which was switched off
    with files.locked(path, "run cnn"):
        for left, named in (("process 1 on elsewhere, since then", "process 1 on elsewhere"), ("", "another process")):
            holder.write_text(left)
            told = pytest.raises(LockedError, match=f"^run cnn is in use by {named}.* lock: {path}$")
            with told, files.locked(path, "run cnn"):
                pass
        holder.unlink()  # as between two looks at it
        with pytest.raises(LockedError, match="in use by another process"), files.locked(path, "run cnn"):
            pass


def test_a_lock_is_waited_for_and_the_wait_is_told_again(tmp_path, monkeypatch, capsys):
    path, holder = tmp_path / "it.lock", contextlib.ExitStack()
    holder.enter_context(files.locked(path, "it"))
    monkeypatch.setattr(files, "TOLD_AGAIN", 0.3)
    threading.Timer(0.5, holder.close).start()
    files.wait_for(path, "it is in use")
    assert capsys.readouterr().err == "waiting: it is in use\n" * 2
