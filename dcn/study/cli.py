"""The `dcn` command: parses, calls, prints. Whatever needs TensorFlow is imported where it is called."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from dcn._version import __version__
from dcn.study import pages, records
from dcn.study.config import MEASUREMENTS, RUNS, ConfigurationError, RunConfig, record_name, seeds_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 done, 1 failed, 2 wrongly called, 130 interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options = _parser().parse_args(arguments)
    try:
        return options.call(options)
    except ConfigurationError as error:
        print(f"dcn: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, ValueError, OSError) as error:
        print(f"dcn: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dcn: interrupted. Finished epochs are kept: the same command goes on from there", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcn",
        description="Run the experiments of the study again and build the book from their records.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="runs, their standing and duration; pages and their parameters")
    command.set_defaults(call=_list)

    command = commands.add_parser("run", help="execute one page's notebook, with other parameters if you like")
    command.add_argument("page", metavar="NAME", help="a page, see: dcn list")
    command.add_argument("-p", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="a parameter")
    _add_profile(command)
    command.add_argument("--force", action="store_true", help="train again although there is a record")
    command.set_defaults(call=_run)

    command = commands.add_parser("train", help="train the book's runs that have no record, one after the other")
    command.add_argument("run", nargs="*", metavar="NAME", help="a run, see: dcn list; all by default")
    command.set_defaults(call=_train)

    command = commands.add_parser("build", help="execute all pages and render the book")
    _add_profile(command)
    command.add_argument("--pdf", action="store_true", help="print it into report.pdf too; wants Chromium or Chrome")
    command.set_defaults(call=_build)

    command = commands.add_parser("check", help="exit 1 if a record that the book needs is stale or missing")
    command.set_defaults(call=_check)

    command = commands.add_parser("confirm", help="replay the start of stale runs and evaluate their weights again")
    command.add_argument("run", nargs="*", metavar="NAME", help="a run, see: dcn list; all by default")
    command.set_defaults(call=_confirm)

    command = commands.add_parser("bench", help="time the operators beside their peers, on a quiet machine")
    command.add_argument("--repeats", type=int, default=15, help="measurements of each")
    command.add_argument("--record", action="store_true", help="keep the result as book/records/bench.json")
    command.set_defaults(call=_bench)
    return parser


def _add_profile(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--profile",
        choices=("paper", "smoke"),
        default="paper",
        help="full size, or a minute's trial kept apart",
    )


def _list(options: argparse.Namespace) -> int:
    print(f"{'run':<28} {'standing':<10} {'duration':>9}")
    for config in pages.needed():
        record = records.read(config)
        duration = f"{record.provenance['seconds'] / 60:.0f} min" if record else ""
        print(f"{record_name(config):<28} {records.standing(config, record):<10} {duration:>9}")
    print(f"\n{'page':<28} parameters")
    for page in pages.PAGES:
        print(f"{page:<28} {', '.join(pages.notebook_parameters(pages.PAGES[page].notebook))}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from dcn.study import book

    if options.page not in pages.PAGES:
        raise ConfigurationError(f"NAME must be one of {', '.join(pages.PAGES)}. Received: {options.page}")
    notebook = pages.PAGES[options.page].notebook
    changes = pages.parse_parameters(notebook, options.changes)
    parameters = pages.page_parameters(options.page, options.profile, changes)
    configurations = pages.runs_of(options.page, parameters)
    output = book.variant(options.page, parameters)
    if options.force:
        if "force" not in pages.notebook_parameters(notebook):
            raise ConfigurationError(f"--force is for pages that train or measure. Received: {options.page}")
        parameters["force"] = True
    book.execute(options.page, parameters, output)
    print(f"notebook: {output}")
    for config in configurations:
        print(f"record:   {records.record_path(config)}")
    return 0


def _train(options: argparse.Namespace) -> int:
    for config in _chosen(options.run):
        from dcn.study import training

        record = training.train(config)
        accuracies = ", ".join(f"{kind} {100 * each['accuracy']:.2f} %" for kind, each in record.evaluations.items())
        print(f"{record.name:<28} {accuracies}", flush=True)
    return 0


def _chosen(names: Sequence[str]) -> list[RunConfig]:
    """Returns the configurations of the named runs, or of all in the book, each after the one it starts from."""
    configurations = pages.needed()
    if names:
        configurations += [config for run in RUNS for config in seeds_of(run, 3) if config not in configurations]
    by_name = {record_name(config): config for config in configurations}
    for name in names:
        if name not in by_name:
            raise ConfigurationError(f"NAME must be one of {', '.join(by_name)}. Received: {name}")
    return [config for name, config in by_name.items() if not names or name in names]


def _build(options: argparse.Namespace) -> int:
    from dcn.study import book

    if options.profile == "paper":
        _print_standings()
    print(f"book: {book.build(options.profile, pdf=options.pdf)}")
    return 0


def _check(options: argparse.Namespace) -> int:
    standings = _print_standings()
    return 0 if all(standing in ("fresh", "confirmed") for standing in standings) else 1


def _print_standings() -> list[str]:
    standings = {record_name(config): records.standing(config, records.read(config)) for config in pages.needed()}
    standings |= {name: pages.measurement_standing(name) for name in MEASUREMENTS}
    for name, standing in standings.items():
        print(f"{name:<28} {standing}")
    return list(standings.values())


def _bench(options: argparse.Namespace) -> int:
    if options.repeats < 1:
        raise ConfigurationError(f"repeats must be at least 1. Received: repeats={options.repeats}")
    from dcn.study import bench

    measured = bench.bench(options.repeats)
    bench.print_bench(measured)
    if options.record:
        path = records.project_root() / "book" / "records" / "bench.json"
        with records.replacing(path) as temporary:
            temporary.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(f"record: {path}")
    return 0


def _confirm(options: argparse.Namespace) -> int:
    results = [_confirm_one(config) for config in _chosen(options.run)]
    return 0 if all(results) else 1


def _confirm_one(config: RunConfig) -> bool:
    from dcn.study import training

    record = records.read(config)
    standing = records.standing(config, record)
    if record is None or record.config != config:
        print(f"{record_name(config):<28} {standing}: nothing of this configuration to confirm", flush=True)
        return False
    if standing in ("fresh", "confirmed"):
        print(f"{record.name:<28} {standing}", flush=True)
        return True
    differences = training.confirm(record)
    print(f"{record.name:<28} {'differs: ' + '; '.join(differences) if differences else 'confirmed'}", flush=True)
    return not differences


if __name__ == "__main__":
    sys.exit(main())
