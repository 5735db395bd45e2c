"""The `featcache` application: commands in the order of a user's first day."""

from __future__ import annotations

from typing import Annotated

import typer

from featcache.cli import (
    analyze,
    cache,
    derive,
    extract,
    gc,
    ground_truth,
    head,
    ls,
    move,
    probe,
    quickstart,
    repair,
    report,
    run,
    share,
)

app = typer.Typer(
    name="featcache",
    help="Extract features once, evaluate everything.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: featcache quickstart",
)
app.command("quickstart")(quickstart.quickstart)
app.command("extract")(extract.extract)
app.command("probe")(probe.probe)
app.command("ground-truth")(ground_truth.ground_truth)
app.command("run")(run.run)
app.command("analyze")(analyze.analyze)
app.command("report")(report.report)
app.command("ls")(ls.ls)
cache.app.command("repair")(repair.repair)
cache.app.command("derive")(derive.derive)
cache.app.command("gc")(gc.gc)
cache.app.command("push")(share.push)
cache.app.command("pull")(share.pull)
cache.app.command("ls-remote")(share.ls_remote)
cache.app.command("index")(share.index)
cache.app.command("keygen")(share.keygen)
cache.app.command("export")(move.export)
cache.app.command("import")(move.import_)
cache.app.command("merge")(move.merge)
app.add_typer(head.app, name="head")
app.add_typer(cache.app, name="cache")


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"featcache {version('featcache')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Extract features once, evaluate everything."""
