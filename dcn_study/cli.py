"""The `dcn` command: parses, calls, prints. Whatever loads slowly is imported where it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dcn_study.errors import ConfigurationError, StudyError

if TYPE_CHECKING:
    from dcn_study.runs.configuration import RunConfig
    from dcn_study.runs.records import Standing


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 done, 1 failed, 2 wrongly called, 130 interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options = _parser().parse_args(arguments)
    try:
        return options.call(options)
    except (StudyError, OSError) as error:
        if options.debug:
            raise
        print(f"dcn: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, StudyError) else 1
    except KeyboardInterrupt:
        print("dcn: interrupted. Complete epochs are kept: call again, without --force, to resume", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcn",
        description="Run the experiments of the report again and build the book from their records.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="runs, their standing and duration; pages and their parameters")
    command.set_defaults(call=_list)

    command = commands.add_parser("run", help="execute one page's notebook, with other parameters if you like")
    command.add_argument("page", metavar="NAME", help="a page, see: dcn list")
    command.add_argument("-p", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="a parameter")
    _add_profile(command)
    command.add_argument("--force", action="store_true", help="train or measure from nothing")
    command.set_defaults(call=_run)

    command = commands.add_parser("train", help="train the book's runs that have no record, one after the other")
    command.add_argument("run", nargs="*", metavar="NAME", help="a run, with any seed, such as cnn-seed7; default: all")
    command.add_argument("--force", action="store_true", help="train the named runs from nothing")
    command.set_defaults(call=_train)

    command = commands.add_parser("build", help="execute all pages and render the book")
    _add_profile(command)
    command.add_argument("--pdf", action="store_true", help="also write report.pdf (requires Chromium or Chrome)")
    command.set_defaults(call=_build)

    command = commands.add_parser("check", help="exit 1 unless every record of the book is fresh or confirmed")
    command.set_defaults(call=_check)

    command = commands.add_parser("confirm", help="replay the start of stale runs and evaluate their weights again")
    command.add_argument("run", nargs="*", metavar="NAME", help="a run, with any seed; default: all of the book")
    command.add_argument("--all", action="store_true", help="replay fresh and confirmed runs too")
    command.set_defaults(call=_confirm)

    command = commands.add_parser("bench", help="time the operators and their peers, on an idle machine")
    command.add_argument("--repeats", type=int, help="measurements of each; default: as in the book")
    command.add_argument("--record", action="store_true", help="store the result, see: dcn check")
    command.add_argument("--peer-python", metavar="PATH", help="Python with torchvision; default: /usr/bin/python3")
    command.set_defaults(call=_bench)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class _Version(argparse.Action):
    """Prints the version; looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("deformable-conv-digits-study"))
        parser.exit()


def _add_profile(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--profile",
        choices=("paper", "smoke"),
        default="paper",
        help="full size, or a minute's trial kept apart",
    )


def _list(options: argparse.Namespace) -> int:
    from dcn_study.book.pages import PAGES
    from dcn_study.book.parameters import notebook_parameters
    from dcn_study.runs import records
    from dcn_study.runs.catalogue import book_runs, record_name

    print(f"{'run':<34} {'duration':>9} standing")
    for config in book_runs():
        record, standing = records.inspect(config)
        duration = f"{record.provenance.seconds / 60:.0f} min" if record else ""
        print(f"{record_name(config):<34} {duration:>9} {standing}")
    print(f"\n{'page':<34} parameters")
    for page, content in PAGES.items():
        print(f"{page:<34} {', '.join(notebook_parameters(content.notebook))}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from dcn_study.book import build, pages
    from dcn_study.book.parameters import notebook_parameters, parse_parameters

    if options.page not in pages.PAGES:
        raise ConfigurationError(f"NAME must be one of {', '.join(pages.PAGES)}. Received: {options.page}")
    notebook = pages.PAGES[options.page].notebook
    changes = parse_parameters(notebook, options.changes)
    parameters = pages.page_parameters(options.page, options.profile, changes)
    pages.runs_of(options.page, parameters)  # wrong parameters end here, before a kernel starts
    output = build.variant(options.page, parameters)
    if options.force:
        if "force" not in notebook_parameters(notebook):
            raise ConfigurationError(f"--force is for pages that train or measure. Received: {options.page}")
        parameters["force"] = True
    build.execute(options.page, parameters, output)
    print(f"notebook: {output}")
    for source in pages.sources(options.page, parameters):
        print(f"record:   {source.path}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from dcn_study.runs import records, training

    if options.force and not options.run:
        raise ConfigurationError("--force is for named runs. Received: no NAME")
    hold = True
    for config in _chosen(options.run):
        record = training.train(config, book=True, force=options.force)
        accuracies = ", ".join(f"{kind} {100 * each.accuracy:.2f} %" for kind, each in record.evaluations.items())
        print(f"{record.name:<34} {accuracies}", flush=True)
        standing = records.standing(config, record)
        if not standing.holds:
            how = f"dcn confirm {record.name}, or train again: dcn train --force {record.name}"
            print(f"{record.name:<34} {standing}. Not trained: {how}", flush=True)
            hold = False
    return 0 if hold else 1


def _chosen(run_names: Sequence[str]) -> list[RunConfig]:
    """Returns the configurations of the named runs, or of all in the book, each after the one that it starts from."""
    from dcn_study.runs.catalogue import book_runs, run_named

    return sorted(map(run_named, run_names), key=lambda config: bool(config.initial_run)) if run_names else book_runs()


def _build(options: argparse.Namespace) -> int:
    from dcn_study.book.build import build

    if options.profile == "paper":
        _print_standings()
    print(f"book: {build(options.profile, pdf=options.pdf)}")
    return 0


def _check(options: argparse.Namespace) -> int:
    return 0 if all(standing.holds for standing in _print_standings()) else 1


def _print_standings() -> list[Standing]:
    from dcn_study.runs import records
    from dcn_study.runs.catalogue import MEASUREMENTS, book_runs, record_name

    standings = {record_name(config): records.inspect(config)[1] for config in book_runs()}
    standings |= {name: records.inspect_measurement(name, {})[1] for name in MEASUREMENTS}
    for name, standing in standings.items():
        print(f"{name:<34} {standing}")
    return list(standings.values())


def _bench(options: argparse.Namespace) -> int:
    from dcn_study.experiments import bench
    from dcn_study.runs.catalogue import MEASUREMENTS

    repeats = MEASUREMENTS["bench"]["repeats"] if options.repeats is None else options.repeats
    peer_python = options.peer_python or bench.PEER_PYTHON
    if options.record:
        measured = bench.bench(repeats, peer_python=peer_python, force=True)
        print(f"record: {measured.path}")
        results = measured.results
    else:
        results = bench.measure(repeats, peer_python)
    shapes = ["x".join(map(str, result["shape"])) for result in results["shapes"]]
    print(f"{'ratio of medians':<58} {' '.join(f'{shape:>14}' for shape in shapes)} {'geom. mean':>11}")
    for label, values in bench.ratios(results).items():
        print(f"{label:<58} {' '.join(f'{value:>14.3f}' for value in values[:-1])} {values[-1]:>11.3f}")
    if results["peak_memory_bytes"] is not None:
        ratio = results["peak_memory_bytes"] / results["im2col_bytes"]
        print(f"peak memory of forward + backward at {shapes[-1]}, in im2col matrices: {ratio:.2f}")
    for peer in ("onnxruntime", "torchvision"):
        print(f"{peer} {results['peers'].get(peer, 'is not installed, not measured')}")
    return 0


def _confirm(options: argparse.Namespace) -> int:
    results = [_confirm_one(config, options.all) for config in _chosen(options.run)]
    return 0 if all(results) else 1


def _confirm_one(config: RunConfig, again: bool) -> bool:
    from dcn_study.runs import confirmation, records
    from dcn_study.runs.catalogue import record_name

    record, standing = records.inspect(config)
    if record is None or record.config != config:
        print(f"{record_name(config):<34} {standing}. Nothing of this configuration to confirm", flush=True)
        return False
    if standing.holds and not again:
        print(f"{record.name:<34} {standing}", flush=True)
        return True
    try:
        differences = confirmation.confirm(record)
    except StudyError as error:
        differences = [str(error)]
    result = f"differs: {'; '.join(differences)}" if differences else "confirmed"
    print(f"{record.name:<34} {result}", flush=True)
    return not differences


if __name__ == "__main__":
    sys.exit(main())
