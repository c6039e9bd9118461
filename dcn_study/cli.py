"""The `dcn` command: parses, calls, prints. Whatever loads slowly is imported where it is called."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dcn_study.errors import BookError, ConfigurationError, RecordError, StudyError, did_you_mean
from dcn_study.processes import apart, end_with_parent, interruptible

if TYPE_CHECKING:
    from dcn_study.cluster.plan import Task
    from dcn_study.runs.records import Record
    from dcn_study.runs.run import Run

end_with_parent()  # in the processes that a command starts, which import this module too


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 done, 1 failed, 2 wrongly called, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        _require_unicode(" ".join([os.getcwd(), *(arguments or sys.argv)]))
        return options.call(options)
    except BrokenPipeError:  # as in: dcn list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (StudyError, OSError) as error:
        if options.debug:
            raise
        text = str(error) if isinstance(error, BookError) else " ".join(str(error).splitlines())
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            text += f": on the disk of the project, or on that of temporary files (TMPDIR), {tempfile.gettempdir()}"
        print(f"dcn: {text}", file=sys.stderr)
        return error.exit_code if isinstance(error, StudyError) else 1
    except KeyboardInterrupt:
        print("dcn: interrupted. Complete epochs are kept: call again, without --force, to resume", file=sys.stderr)
        return 130
    finally:
        if arguments is None:  # the process ends now, and what it has done is told
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _require_unicode(names: str) -> None:
    """Checks names of files: where Python takes ASCII for their encoding, it cannot write other characters."""
    try:
        names.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            "names of files must be readable as UTF-8. Received: names with other characters than "
            f"{sys.getfilesystemencoding()} has; set PYTHONUTF8=1"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcn",
        description="Run the experiments of the report again and build the book from their records.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="runs, their status and duration; pages and their parameters")
    command.set_defaults(call=_list)

    command = commands.add_parser("run", help="execute one page's notebook, with other parameters if you like")
    command.add_argument("page", metavar="NAME", help="a page, see: dcn list")
    _add_parameters(command)
    _add_profile(command)
    command.add_argument("--out", metavar="FILE", help="where the executed notebook goes, FILE.ipynb; default: in runs")
    command.add_argument("--force", action="store_true", help="train or measure from nothing")
    command.add_argument("--html", action="store_true", help="also render the page, with its numbers in the text")
    command.set_defaults(call=_run)

    command = commands.add_parser("train", help="train runs that have no record")
    command.add_argument("run", nargs="*", metavar="NAME", help="such as cnn-seed12; default: the paper's and controls")
    _add_parameters(command)
    command.add_argument("--force", action="store_true", help="train the named runs from nothing")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, metavar="N", help="train N runs at a time on this machine, 1 to 1000")
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="train on a running Dask cluster, such as tcp://HOST:8786"
    )
    command.add_argument(
        "--threads", type=int, metavar="N", help="threads of each run; default: all, shared evenly; 1 with --scheduler"
    )
    command.add_argument("--dry-run", action="store_true", help="print the plan and how long it takes, train nothing")
    command.set_defaults(call=_train)

    command = commands.add_parser("build", help="execute all pages and render the book")
    _add_profile(command)
    command.add_argument("--pdf", action="store_true", help="also write report.pdf (requires Chromium or Chrome)")
    command.add_argument("--force", action="store_true", help="execute all pages, not only those that changed")
    command.add_argument("--cell-seconds", type=int, metavar="N", help="that a cell may take; default: ten minutes")
    command.set_defaults(call=_build)

    command = commands.add_parser("check", help="exit 1 unless every record of the book is fresh or confirmed")
    command.add_argument("-v", "--verbose", action="store_true", help="print the status of each record")
    command.set_defaults(call=_check)

    command = commands.add_parser("confirm", help="replay the start of stale runs and evaluate their weights again")
    command.add_argument("run", nargs="*", metavar="NAME", help="a run, with any seed; default: all of the book")
    command.add_argument("--all", action="store_true", help="replay fresh and confirmed runs too")
    command.set_defaults(call=_confirm)

    command = commands.add_parser("measure", help="take measurements of the book again, on an idle machine")
    command.add_argument("name", nargs="+", metavar="NAME", help="a measurement, such as offsets")
    command.set_defaults(call=_measure)

    command = commands.add_parser(
        "bench", help="time the operators and their peers, on an idle machine, and record nothing"
    )
    command.add_argument("--repeats", type=int, help="measurements of each, 1 to 1000; default: as in the book")
    command.add_argument("--peer-python", metavar="PATH", help="Python with torchvision; default: /usr/bin/python3")
    command.set_defaults(call=_bench)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class _Version(argparse.Action):
    """Prints the version, which is looked up only if asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("deformable-conv-digits-study"))
        parser.exit()


def _add_parameters(command: argparse.ArgumentParser) -> None:
    command.add_argument("-p", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="a parameter")
    command.add_argument("-f", dest="files", action="append", default=[], metavar="FILE", help="parameters, as YAML")


def _changes(options: argparse.Namespace) -> list[str]:
    """Returns the parameters of a command as `KEY=VALUE`, those of files before those that are given by themselves."""
    found = []
    for path in options.files:
        import yaml

        try:
            content = yaml.safe_load(Path(path).read_bytes())
        except (OSError, RecursionError, ValueError, yaml.YAMLError) as error:
            raise ConfigurationError(f"-f must name a YAML file: {path}: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ConfigurationError(f"-f must name a YAML file of KEY: VALUE. Received: {path}")
        found += [f"{name}={value}" for name, value in content.items()]
    return found + options.changes


def _add_profile(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--profile", choices=("paper", "smoke"), default="paper", help="full size, or a minute's trial kept apart"
    )


def _list(options: argparse.Namespace) -> int:
    from dcn_study.book.pages import PAGES
    from dcn_study.book.parameters import notebook_parameters
    from dcn_study.runs import records

    print(f"{'run':<34} {'duration':>9} status")
    for run in records.shown():
        record, status = records.inspect(run)
        duration = f"{record.provenance.seconds / 60:.0f} min" if record else ""
        print(f"{run.name:<34} {duration:>9} {status}")
    print(f"\n{'page':<34} parameters")
    for page, content in PAGES.items():
        print(f"{page:<34} {', '.join(notebook_parameters(content.notebook))}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from dcn_study.book import build, execution, pages
    from dcn_study.book.parameters import notebook_parameters, parse_parameters
    from dcn_study.book.sources import sources
    from dcn_study.runs.data import load_digits
    from dcn_study.runs.files import project_root

    if options.page not in pages.PAGES:
        raise ConfigurationError(_no_page(options.page))
    notebook = pages.PAGES[options.page].notebook
    changes = parse_parameters(notebook, _changes(options))
    parameters = pages.page_parameters(options.page, options.profile, changes)
    if options.out and not options.out.endswith(".ipynb"):
        raise ConfigurationError(f"--out must end in .ipynb. Received: --out {options.out}")
    if options.out and Path(options.out).is_dir():
        raise ConfigurationError(f"--out must be a file. Received: --out {options.out}, which is a folder")
    output = Path(options.out).absolute() if options.out else build.variant(options.page, parameters)
    here = Path.cwd()
    os.chdir(project_root())  # where notebooks work, and what a relative path of data refers to
    load_digits()
    pages.check(options.page, parameters)
    if options.force:
        if "force" not in notebook_parameters(notebook):
            raise ConfigurationError(f"--force is for pages that train or measure. Received: {options.page}")
        parameters["force"] = True
    with interruptible(execution.stop_kernels):  # papermill would wait for the cell
        executed = build.run(options.page, parameters, output)
    print(f"notebook: {os.path.relpath(output, here)}")
    for source in sources(executed.files):
        print(f"record:   {os.path.relpath(source.path, here)}")
    if options.html:
        rendered = build.render_page(options.page, parameters, executed, output)
        print(f"page:     {os.path.relpath(rendered, here)}")
    return 0


def _no_page(name: str) -> str:
    """Returns the message for a name that is not the name of a page."""
    from dcn_study.book.pages import PAGES
    from dcn_study.runs.catalogue import find_run

    try:
        run = find_run(name)
    except ConfigurationError:
        return f"NAME must be one of {', '.join(PAGES)}. Received: {name}{did_you_mean(name, PAGES)}"
    page = f"dcn run cnn -p run={run.entry}" + (f" -p seed={run.seed}" if run.seed else "")
    return f"{name} is a run, not a page. Train it with: dcn train {name}. Show it with: {page}"


def _train(options: argparse.Namespace) -> int:
    from dcn_study.cluster.plan import plan
    from dcn_study.runs import records
    from dcn_study.runs.data import load_digits
    from dcn_study.runs.files import project_root

    _require_count("workers", options.workers)
    _require_count("threads", options.threads)
    if options.force and not options.run and not options.dry_run:
        raise ConfigurationError("--force is for named runs. Received: no NAME")
    changes = _changes(options)
    os.chdir(project_root())  # what a relative path of data refers to
    chosen = _chosen(options.run, changes)
    for data in {run.config.data for run in chosen}:
        load_digits(data)
    tasks = plan(chosen, force=options.force)
    if options.dry_run:
        _print_plan(tasks, options.workers or 1)
        return 0
    planned = {task.name for task in tasks}
    there = [records.read(run) for run in chosen if run.name not in planned]
    statuses = [_print_result(record) for record in there if record]
    train = _train_here if options.workers is options.scheduler is None else _train_on_workers
    failures = train(tasks, options) if tasks else {}
    return 0 if all(statuses) and not failures else 1


def _require_count(name: str, value: int | None, most: int = 1000) -> None:
    if value is not None and not 1 <= value <= most:
        raise ConfigurationError(f"--{name} must be from 1 to {most}. Received: --{name} {value}")


def _print_plan(tasks: Sequence[Task], workers: int) -> None:
    from dcn_study.cluster.display import duration
    from dcn_study.cluster.plan import schedule

    slots = schedule(tasks, workers)
    print(f"{'run':<34} {'worker':>6} {'starts after':>12} {'duration':>10}  starts from")
    for slot in slots:
        known = "" if slot.task.seconds is not None else "?"
        lasts = f"{known}{duration(slot.end - slot.start)}"
        print(f"{slot.task.name:<34} {slot.worker:>6} {duration(slot.start):>12} {lasts:>10}  {slot.task.after}")
    last = max((slot.end for slot in slots), default=0.0)
    runs = "1 run" if len(slots) == 1 else f"{len(slots)} runs"
    print(f"\n{runs}, done after {duration(last)} on {workers} worker{'s' if workers > 1 else ''}")
    if any(task.seconds is None for task in tasks):
        print("? no record of a similar run: taken to last as long as the median of the others")


def _print_result(record: Record) -> bool:
    """Prints the accuracies of a run, and advice if its record does not hold; returns whether it holds."""
    from dcn_study.names import TEST_IMAGES
    from dcn_study.runs import records

    accuracies = ", ".join(f"{kind} {100 * record.evaluations[kind].accuracy:.2f}%" for kind in TEST_IMAGES)
    print(f"{record.name:<34} {accuracies}", flush=True)
    status = records.status(record.run, record)
    if not status.holds:
        named = f"dcn confirm {record.name}, or train again: dcn train --force {record.name}"
        how = named if record.run.entry else "train again with --force"
        print(f"{record.name:<34} {status}. Not trained: {how}", flush=True)
    return status.holds


def _train_here(tasks: Sequence[Task], options: argparse.Namespace) -> dict[str, str]:
    """Trains the runs of a plan one after the other, in this process; returns the reasons of those that failed."""
    from dcn_study.cluster.plan import schedule
    from dcn_study.runs.libraries import load_tensorflow

    load_tensorflow()
    from dcn_study.runs import training

    if options.threads:
        training.use_threads(options.threads)
    failures: dict[str, str] = {}
    for slot in schedule(tasks, 1):
        task = slot.task
        try:
            if task.after in failures:
                raise RecordError(f"it starts from {task.after}, which failed")
            _print_result(training.train(task.run, force=options.force))
        except StudyError as error:
            if options.debug:
                raise
            failures[task.name] = str(error)
            print(f"dcn: {task.name} failed: {error}", file=sys.stderr)
    return failures


def _train_on_workers(tasks: Sequence[Task], options: argparse.Namespace) -> dict[str, str]:
    """Trains the runs of a plan on Dask workers; returns the reasons of those that failed."""
    try:
        from dcn_study.cluster.connection import connect, local
        from dcn_study.cluster.train import train_all
    except ImportError as error:
        raise ConfigurationError(
            f"--workers and --scheduler require Dask, see the extra 'cluster' of dcn_study/pyproject.toml: {error}"
        ) from error
    from dcn_study.runs.inputs import processors

    if options.scheduler:
        cluster, threads = connect(options.scheduler), options.threads or 1
    else:
        count = min(options.workers, len(tasks))
        print(f"starting workers: {count}", file=sys.stderr, flush=True)
        cluster = local(count)
        threads = options.threads or max(1, processors() // options.workers)
    with cluster as client:
        return train_all(client, tasks, threads=threads, force=options.force, finished=_print_result)


def _chosen(run_names: Sequence[str], changes: Sequence[str] = ()) -> list[Run]:
    """Returns the named runs, or all of the book, each after the one that it starts from.

    Args:
        run_names: with any seed; none for all in the book.
        changes: parameters as `KEY=VALUE`, of named runs: as in the notebook of a training, except its name and seeds.
    """
    from dcn_study.book.pages import PAGES
    from dcn_study.book.parameters import parse_parameters
    from dcn_study.runs.catalogue import NAMED, book_runs, find_run

    if changes and not run_names:
        raise ConfigurationError("parameters are for named runs. Received: no NAME")
    values = parse_parameters("training", changes, without=("run", "seed", "seeds", "force")) if changes else {}
    for name in run_names:
        if name in PAGES and name not in NAMED:
            raise ConfigurationError(f"{name} is a page, not a run. Execute it with: dcn run {name}")
    if not run_names:
        return book_runs()
    return sorted((find_run(name, **values) for name in run_names), key=lambda run: bool(run.config.initial_run))


def _build(options: argparse.Namespace) -> int:
    _require_count("cell-seconds", options.cell_seconds, 86_400)
    from dcn_study.book.build import build

    limit = {"cell_seconds": options.cell_seconds} if options.cell_seconds else {}
    print(f"book: {build(options.profile, pdf=options.pdf, force=options.force, **limit)}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from dcn_study.runs import measurements, records
    from dcn_study.runs.data import load_digits

    load_digits()  # damaged data are one error, and not one for each record
    statuses = {run.name: records.inspect(run)[1] for run in records.shown()}
    statuses |= {name: measurements.inspect(name)[1] for name in measurements.MEASUREMENTS}
    for name, status in statuses.items():
        if options.verbose or not status.holds:
            print(f"{name:<34} {status}")
    counts = Counter(status.state for status in statuses.values())
    print(f"{len(statuses)} records: {', '.join(f'{count} {state}' for state, count in counts.most_common())}")
    return 0 if all(status.holds for status in statuses.values()) else 1


def _measure(options: argparse.Namespace) -> int:
    from dcn_study.runs import measurements

    for name in options.name:
        if name not in measurements.MEASUREMENTS:
            hint = did_you_mean(name, measurements.MEASUREMENTS)
            raise ConfigurationError(
                f"NAME must be one of {', '.join(measurements.MEASUREMENTS)}. Received: {name}{hint}"
            )
    for name in options.name:
        print(f"record: {apart(partial(measurements.result, force=True), name).path}", flush=True)
    return 0


def _bench(options: argparse.Namespace) -> int:
    _require_count("repeats", options.repeats)
    if options.peer_python and shutil.which(options.peer_python) is None:
        raise ConfigurationError(f"--peer-python must be a program. Received: --peer-python {options.peer_python}")
    from dcn_study.runs.libraries import load_tensorflow

    load_tensorflow()
    from dcn_study.experiments import bench
    from dcn_study.experiments.ratios import ratios
    from dcn_study.runs.measurements import MEASUREMENTS

    repeats = options.repeats or MEASUREMENTS["bench"].parameters["repeats"]
    with interruptible():
        results = bench.measure(repeats, options.peer_python or bench.PEER_PYTHON)
    shapes = ["x".join(map(str, result["shape"])) for result in results["shapes"]]
    print(f"{'ratio of medians':<58} {' '.join(f'{shape:>14}' for shape in shapes)} {'geom. mean':>11}")
    for label, values in ratios(results).items():
        print(f"{label:<58} {' '.join(f'{value:>14.3f}' for value in values[:-1])} {values[-1]:>11.3f}")
    if results["peak_memory_bytes"] is not None:
        ratio = results["peak_memory_bytes"] / results["im2col_bytes"]
        print(f"peak memory of forward + backward at {shapes[-1]}, in im2col matrices: {ratio:.2f}")
    for peer in ("onnxruntime", "torchvision"):
        print(f"{peer} {results['peers'].get(peer, 'is not installed, not measured')}")
    return 0


def _confirm(options: argparse.Namespace) -> int:
    from dcn_study.runs import records
    from dcn_study.runs.measurements import MEASUREMENTS

    measured = [name for name in options.run if name in MEASUREMENTS] if options.run else list(MEASUREMENTS)
    runs = [name for name in options.run if name not in MEASUREMENTS]
    chosen = _chosen(runs) if runs else [] if options.run else records.shown()
    results = [_confirm_one(run, options.all) for run in chosen]
    results += [_confirm_measurement(name, options.all) for name in measured]
    return 0 if all(results) else 1


def _confirm_measurement(name: str, again: bool) -> bool:
    from dcn_study.runs import measurements, repetition

    measured, status = measurements.inspect(name)
    if measured is None or (status.holds and not again):
        print(f"{name:<34} {status}", flush=True)
        return status.holds
    return _print_confirmation(name, partial(apart, repetition.confirm, measured))


def _confirm_one(run: Run, again: bool) -> bool:
    from dcn_study.runs import records
    from dcn_study.runs.libraries import load_tensorflow

    record, status = records.inspect(run)
    if record is None or record.config != run.config:
        print(f"{run.name:<34} {status}. Nothing of this configuration to confirm", flush=True)
        return False
    if status.holds and not again:
        print(f"{record.name:<34} {status}", flush=True)
        return True
    load_tensorflow()
    from dcn_study.runs import confirmation

    return _print_confirmation(record.name, partial(confirmation.confirm, record, every_seed=again))


def _print_confirmation(name: str, confirm: Callable[[], list[str]]) -> bool:
    """Confirms a record and prints the differences, if there are any; returns whether there are none."""
    try:
        differences = confirm()
    except StudyError as error:
        differences = [str(error)]
    result = f"differs: {'; '.join(differences)}" if differences else "confirmed"
    print(f"{name:<34} {result}", flush=True)
    return not differences


if __name__ == "__main__":
    sys.exit(main())
