"""Damages files and calls `dcn` wrongly, many times, on a copy of the project, and prints how each kind ends.

Every case must end in one line that says what is wrong: no traceback, no process left, the right exit code. Exits 1 if
one does not. Not collected by pytest; its kinds of files are those of `test_damage.py`. Call it from the clone:

    python tests/campaign.py --damages 300 --inputs 200 --kills 64

The kills are spread evenly over the commands that take long, with moments and signals that `--seed` decides.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import test_damage
from helpers import ROOT, inside

from dcn_study import cli
from dcn_study.book import build, pages
from dcn_study.book.parameters import notebook_parameters
from dcn_study.errors import RecordError
from dcn_study.runs import measurements, records
from dcn_study.runs.files import file_sha256

PATIENCE = 20  # seconds for a killed command's processes to end, on a busy machine
AT_ONCE = 5  # seconds within which Ctrl-C ends a command
RECOVERY = 4  # after one kill in so many of a command, it is called again and must end well
_SMALL = ["-p", "epochs=3", "-p", "train_size=640", "-p", "test_size=200"]
# Commands that take long, small, and the seconds within which they are killed; {} stands for a new seed each time.
KILLED = {
    "check": (["check"], 4),
    "measure": (["measure", "models"], 9),
    "bench": (["bench", "--repeats", "1"], 60),
    "confirm": (["confirm", "--all", "mini_resnet", "models"], 20),
    "train": (["train", "cnn-seed{}", *_SMALL], 20),
    "train --workers 2": (["train", "cnn-seed1{}", "mini_resnet-seed1{}", "--workers", "2", *_SMALL], 25),
    "run": (["run", "cnn", "-p", "seed=2{}", *_SMALL], 30),
    "build": (["build", "--profile", "smoke"], 120),
}
PARTS = ("notebooks", "book", "_config.yml", ".zenodo.json", "CITATION.cff")
VALUES = (
    "", " ", "x", "-1", "0", "1e99", "nan", "inf", "-inf", "None", "True", "1.5", "9" * 5000, "0x10", "1,2", "[1]",
    "../../etc/passwd", "$(touch here)", "'; import os", "\N{SNOWMAN}", "a\nb", "\\", "{}", "%s", "=", "--force",
)  # fmt: skip
# Wrong calls of the commands and what they exit with; those of pages are made of their parameters and `VALUES`.
NAMES = ("", "x", "CNN", "../cnn", "a b", "-1", "cnn\n", "\N{SNOWMAN}", "9" * 5000)
NO_RUNS = ("paper", "cnn-seed", "cnn-seed01", "cnn-seed-1", "cnn-seed1e3", "cnn-seed\u0663", "cnn-seed4294967296")
COUNTS = ("0", "-1", "9999999", "x", "", "1.5")
CALLS = {
    2: [
        *(
            [command, "--nosuch"]
            for command in ("list", "run", "train", "build", "check", "confirm", "measure", "bench")
        ),
        *([command, name] for command in ("run", "train", "confirm", "measure") for name in NAMES),
        *([command, name] for command in ("train", "confirm") for name in NO_RUNS),
        *(["train", "cnn", option, value] for option in ("--workers", "--threads") for value in COUNTS),
        *(["train", "cnn", "-p", text] for text in ("epochs", "epochs=0", "seed=1", "run=cnn", "x=1", "=", "")),
        *(["bench", "--repeats", value] for value in COUNTS),
        *(["bench", "--peer-python", path] for path in ("/nonexistent", "no such program", "/")),
        *(["build", "--cell-seconds", value] for value in COUNTS),
        *(["run", "method", "-f", path] for path in ("nothing.yaml", "_config.yml", "book", "notebooks/method.ipynb")),
        *(["run", "method", "--out", path] for path in ("x.html", "book")),
        [],
        ["nosuch"],
        ["build", "--profile", "tiny"],
        ["train", "--force"],
        ["train", "-p", "epochs=1"],
        ["train", "--workers", "2", "--scheduler", "tcp://localhost:1"],
    ],
    1: [["run", "method", "-p", f"data={path}"] for path in ("nothing.npz", "book", "_config.yml", "/", "\N{SNOWMAN}")],
}


@dataclasses.dataclass
class Row:
    """How often a case was tried, and how it ended."""

    case: str
    tried: int = 0
    told: int = 0
    accepted: int = 0
    tracebacks: int = 0
    orphans: int = 0
    wrong: int = 0
    examples: list[str] = dataclasses.field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.tracebacks + self.orphans + self.wrong


def damaged(content: bytes, how: str, chance: random.Random) -> bytes:
    """A file's content after a flipped bit, a cut, a lost block, a block of another file, or as an empty file."""
    changed = bytearray(content)
    place = chance.randrange(len(content))
    if how == "bit":
        changed[place] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del changed[place:]
    elif how == "zeros":
        changed[place : place + 512] = bytes(len(changed[place : place + 512]))
    elif how == "noise":
        changed[place : place + 64] = chance.randbytes(64)
    elif how == "empty":
        changed.clear()
    return bytes(changed)


def damages(kind, count: int, chance: random.Random) -> Row:
    """Damages a file of one kind and reads it, in this process."""
    row = Row(f"damaged {kind.__name__}")
    with tempfile.TemporaryDirectory() as name, inside(name):
        (Path(name) / "book").mkdir()
        (Path(name) / "_config.yml").touch()
        path, function = kind(Path(name))
        whole, intact = path.read_bytes(), function()
        for _ in range(count):
            how = chance.choice(("bit", "bit", "bit", "cut", "zeros", "noise", "empty"))
            path.write_bytes(damaged(whole, how, chance))
            row.tried += 1
            try:
                found = test_damage.read(function)
            except BaseException as error:  # the very thing that is looked for
                row.tracebacks += 1
                row.examples.append(f"{how}: {type(error).__name__}: {error}"[:200])
                continue
            if test_damage.named(found, path):
                row.told += 1
            elif found == intact or (kind is test_damage.template and isinstance(found, dict)):
                row.accepted += 1  # what was damaged says nothing: a date, a name in an archive, a word of prose
            else:
                row.wrong += 1
                row.examples.append(f"{how}: {found}"[:200])
    return row


def page_calls(count: int, chance: random.Random) -> list[tuple[list[str], int]]:
    """Calls of pages with values that hardly fit."""
    declared = {page: list(notebook_parameters(content.notebook)) for page, content in pages.PAGES.items()}
    tried = [(page, name, value) for page, names in declared.items() for name in names for value in VALUES]
    return [(["run", page, "-p", f"{name}={value}"], -1) for page, name, value in chance.sample(tried, count)]


def inputs(case: str, given: list[tuple[list[str], int]]) -> Row:
    """Calls the command in this process; where a kernel would start, the call was accepted."""
    row = Row(case)
    build.run = accept  # type: ignore[assignment]
    for arguments, expected in given:
        row.tried += 1
        told = io.StringIO()
        try:
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()), inside(Path.cwd()):
                code = cli.main(arguments)
        except Accepted:
            row.accepted += 1
            row.wrong += expected != -1
            row.examples.append(f"{arguments}: accepted"[:200])
            continue
        except SystemExit as error:  # of argparse, which prints the usage too
            row.told += error.code == expected
            row.wrong += error.code != expected
            continue
        except BaseException as error:  # the very thing that is looked for
            row.tracebacks += 1
            row.examples.append(f"{arguments}: {type(error).__name__}: {error}"[:200])
            continue
        one_line = told.getvalue().count("\n") == 1
        if one_line and code in ((1, 2) if expected == -1 else (expected,)):
            row.told += 1
        else:
            row.wrong += 1
            row.examples.append(f"{arguments}: exit {code}: {told.getvalue()}"[:200])
    return row


class Accepted(BaseException):
    """A kernel would have started."""


def accept(*given, **named):
    raise Accepted


@dataclasses.dataclass
class Kills:
    """How often a command was killed, and what was wrong afterwards.

    Attributes:
        ended: how often it had ended by itself before.
        orphans: processes that were still there `PATIENCE` seconds after the signal.
        partial: files that are damaged or cut short.
        codes: exits with another code than that of the signal; a Ctrl-C that takes longer than `AT_ONCE` is one.
        longest: seconds until the last process had ended.
        again: how often the same command was called afterwards, and how often that failed or left litter.
    """

    case: str
    kills: int = 0
    ended: int = 0
    orphans: int = 0
    partial: int = 0
    tracebacks: int = 0
    codes: int = 0
    longest: float = 0.0
    again: int = 0
    failed: int = 0
    examples: list[str] = dataclasses.field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.orphans + self.partial + self.tracebacks + self.codes + self.failed


def kills(count: int, seed: int) -> list[Kills]:
    """Kills each command at moments that the seed decides; after one kill in `RECOVERY`, it must end well."""
    rows = {case: Kills(case) for case in KILLED}
    with contextlib.suppress(KeyboardInterrupt):  # the table has what was done so far
        for number, case in zip(range(count), itertools.cycle(KILLED), strict=False):
            kill(rows[case], number // len(KILLED), random.Random(f"{seed} {number}"))
    return list(rows.values())


def kill(row: Kills, number: int, chance: random.Random) -> None:
    arguments, seconds = KILLED[row.case]
    command = [sys.executable, "-m", "dcn_study.cli", *(part.format(100 + number) for part in arguments)]
    how = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 3]
    group = how == signal.SIGINT and chance.random() < 0.5  # as a terminal does
    moment, mark = chance.uniform(0.5, seconds), f"CAMPAIGN_{uuid.uuid4().hex}"
    what = f"{how.name}{' to all' if group else ''} after {moment:.1f} s"
    with tempfile.TemporaryFile("w+") as file:
        environment = {**os.environ, mark: "1"}
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        if process.poll() is None:
            row.kills += 1
            (os.killpg if group else os.kill)(process.pid, how)
        else:
            row.ended, what = row.ended + 1, "not killed"
        expected = {"not killed": 0}.get(what, 130 if how == signal.SIGINT else -how)
        sent = time.monotonic()
        while (left := marked(mark)) and time.monotonic() < sent + PATIENCE:
            if process.poll() is None and how == signal.SIGINT and time.monotonic() > sent + AT_ONCE:
                expected = None  # too late, whatever it will be
            time.sleep(0.2)
        row.longest = max(row.longest, time.monotonic() - sent)
        row.orphans += len(left)
        for orphan, command_line in left.items():
            row.examples.append(f"{what}: left after {PATIENCE} s: {command_line}"[:200])
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
        process.wait()
        if how == signal.SIGINT and process.returncode == 0:
            expected = 0  # it had told its result
        file.seek(0)
        told = file.read()
    print(f"{row.case}: {what}: exit {process.returncode}", file=sys.stderr, flush=True)
    found = partial()
    row.partial += len(found)
    row.tracebacks += "Traceback" in told
    row.codes += process.returncode != expected
    if found or "Traceback" in told or process.returncode != expected:
        row.examples.append(f"{what}: exit {process.returncode}, {found}: ...{told[-600:]}")
    if number % RECOVERY == RECOVERY - 1:
        row.again += 1
        again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
        litter = partial() + [str(path) for path in Path().rglob(".*@*")]
        if again.returncode or litter or "Traceback" in again.stderr:
            row.failed += 1
            row.examples.append(f"{what}, again: exit {again.returncode}, {litter}: ...{again.stderr[-600:]}")


def partial() -> list[str]:
    """What is damaged in this project: records with their files, checkpoints, executed pages, books."""
    books = (path.parent for path in Path("_build").glob("*/searchindex.js"))
    found = [str(folder) for folder in books if not (folder / "index.html").is_file()]
    for path in (*Path("book/records").glob("*.json"), *Path("runs").glob("*.json")):
        measured = path.stem.split("-")[0] in measurements.MEASUREMENTS
        try:
            record = records.read_file(path, records.Measurement if measured else records.Record)
        except RecordError as error:
            found.append(str(error))
            continue
        if not (measured or record.run.interrupted or records.status(record.run, record).holds):
            found.append(f"{path}: {records.status(record.run, record)}")
    for path in Path("checkpoints").glob("*/state.json"):
        content = json.loads(path.read_bytes())
        sealed, model = content.pop("sha256"), path.with_name(content["model"])
        if sealed != records.seal(content) or content["model_sha256"] != file_sha256(model):
            found.append(str(path))
    for path in (*Path("runs").glob("[!.]*.ipynb"), *Path("_build/executed").rglob("[!.]*.ipynb")):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            found.append(str(path))
    return found


def marked(mark: str) -> dict[int, str]:
    """The processes that have a variable in their environment, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found[int(path.parent.name)] = path.with_name("cmdline").read_text().replace("\0", " ")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--damages", type=int, default=300, help="of each kind of file")
    parser.add_argument("--inputs", type=int, default=200, help="values of pages' parameters")
    parser.add_argument("--kills", type=int, default=0, help="of commands that take long, half a minute each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores for what it starts behind itself
    rows = [damages(kind, options.damages, chance) for kind in test_damage.KINDS]
    with tempfile.TemporaryDirectory() as name, inside(name):
        for part in PARTS:
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, Path(name) / part)
        rows.append(inputs("wrong calls", [(call, code) for code, calls in CALLS.items() for call in calls]))
        rows.append(inputs("values of parameters", page_calls(options.inputs, chance)))
        killed = kills(options.kills, options.seed)
    print(f"{'case':<28} {'tried':>6} {'told':>6} {'accepted':>8} {'tracebacks':>10} {'orphans':>7} {'wrong':>6}")
    for row in rows:
        numbers = f"{row.tried:>6} {row.told:>6} {row.accepted:>8} {row.tracebacks:>10} {row.orphans:>7} {row.wrong:>6}"
        print(f"{row.case:<28} {numbers}")
    if options.kills:
        names = ("kills", "ended", "orphans", "partial", "tracebacks", "codes", "longest", "again", "failed")
        print(" ".join([f"\n{'command':<20}", *(f"{name:>10}" for name in names)]))
        for row in killed:
            print(" ".join([f"{row.case:<19}", *(f"{round(getattr(row, name), 1):>10}" for name in names)]))
    for row in (*rows, *killed):
        for example in row.examples[:20]:
            print(f"{row.case}: {example}")
    return 1 if any(row.bad for row in (*rows, *killed)) else 0


if __name__ == "__main__":
    sys.exit(main())
