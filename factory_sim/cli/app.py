"""All commands, wired. Each module imports what it needs when it is called, so that `--help` is quick."""

import typer

from factory_sim.cli import books, capacity, frontier, inspect, profiles, report, schema, timeline
from factory_sim.cli import run as run_commands
from factory_sim.cli import statement as statements
from factory_sim.cli import tokens as token_counts

app = typer.Typer(
    name="factory-sim",
    help="Token economics of AI factories, simulated on throughput measured on real hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from factory_sim import __version__

        print(f"factory-sim {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command("run")(run_commands.run)
app.command("compare")(run_commands.compare)
app.command("capacity")(capacity.capacity)
app.command("frontier")(frontier.frontier)
app.command("report")(report.report)
app.command("timeline")(timeline.timeline)
app.command("statement")(statements.statement)
app.command("reprice")(books.reprice)
app.command("explain")(books.explain)
app.command("export")(books.export)
app.command("tokens")(token_counts.tokens)
app.command("inspect")(inspect.inspect)
app.add_typer(profiles.app, name="profiles")
app.command("schema")(schema.schema)
