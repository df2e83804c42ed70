"""`factory-sim profiles`: what has been measured, how well it is fitted, and what we would say of anything else."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Profiles of serving systems: list, show, fit, estimate, validate.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Folder = Annotated[
    Path | None, typer.Option("--profiles", metavar="DIR", help="Profiles made by `profiles fit` instead.")
]


def _print(frame, title: str) -> None:
    from rich.console import Console

    from factory_sim.reports.tables import tidy_table

    Console(highlight=False).print(tidy_table(frame, title=title))


def _print_list(found) -> None:
    """The configurations as one table, or, where the window is too narrow for it, profile by profile without dates."""
    from rich.console import Console

    from factory_sim.reports.tables import tidy_table

    console, title = Console(highlight=False), f"{len(found)} measured configurations"
    table = tidy_table(found, title=title)
    if table.width <= console.width:
        console.print(table)
        return
    print(title)
    heads = ("layout", "rows", "in flight", "isl", "osl", "TPOT%", "TTFT%")
    rows = []
    for row in found.itertuples(index=False):
        errors = [
            f"{value:.1f}" if value is not None and value == value else "-"
            for value in (row.tpot_error_percent, row.ttft_error_percent)
        ]
        layout = row.layout if row.speculation in ("", "none") else f"{row.layout} {row.speculation}"
        told = ", ".join(word for word in (row.profile, row.mode, row.trust) if word)
        rows.append((told, (layout, str(row.rows), row.concurrency, row.isl, row.osl, *errors)))
    widths = [max(map(len, cells)) for cells in zip(heads, *(cells for _, cells in rows))]
    line = "  ".join(f"{{:{'<' if place in (0, 2, 3, 4) else '>'}{width}}}" for place, width in enumerate(widths))
    print("  " + line.format(*heads))
    before = ""
    for told, cells in rows:
        if told != before:
            print(told)
        if any(cells[:1] + cells[2:5]):
            print(("  " + line.format(*cells)).rstrip())
        before = told
    print("in flight: requests, or outputs in a batch; errors: median of the fit, per cent")
    print("dates of the runs: in a wider window, or with --json")


def _records(frame) -> list[dict]:
    """The rows of a table for JSON; what is not known is null."""
    return json.loads(frame.to_json(orient="records", double_precision=15))


def _answer(frame, title: str, as_json: bool) -> None:
    """Print a table, or its rows as JSON."""
    if as_json:
        _dump(_records(frame))
    else:
        _print(frame, title)


def _dump(what) -> None:
    sys.stdout.write(json.dumps(what, indent=1, allow_nan=False) + "\n")


def _played(done: int, of: int) -> None:
    print(f"played all runs {done} of {of} times", file=sys.stderr)


@app.command("list")
def list_profiles(
    model: Annotated[str, typer.Option(help="Only models whose name contains this.")] = "",
    gpu: Annotated[str, typer.Option(help="Only this GPU.")] = "",
    engine: Annotated[str, typer.Option(help="Only this engine.")] = "",
    precision: Annotated[str, typer.Option(help="Only this precision.")] = "",
    mode: Annotated[str, typer.Option(help="Only agg, disagg or generation (image and video).")] = "",
    trust: Annotated[str, typer.Option(help="Only this class of trust.")] = "",
    most_error: Annotated[
        float | None, typer.Option("--most-error", metavar="PERCENT", help="Only median TPOT errors up to this.")
    ] = None,
    least_rows: Annotated[int, typer.Option("--least-rows", metavar="N", help="Only with at least N rows.")] = 1,
    as_json: AsJson = False,
    folder: Folder = None,
) -> None:
    """List measured configurations: fit range, rows, and the error of the fit."""
    from factory_sim.calibration.catalogue import table

    found = table(
        model=model, gpu=gpu, engine=engine, precision=precision, mode=mode, trust=trust, most_error=most_error,
        least_rows=least_rows, folder=folder,
    )  # fmt: skip
    if as_json:
        _dump(_records(found))
    else:
        _print_list(found.drop(columns=["model", "gpu", "engine", "precision"]))


@app.command()
def anchors(
    engine: Annotated[str, typer.Option(help="Engine whose fitted profile is held to the anchors.")] = "sglang",
    as_json: AsJson = False,
    folder: Folder = None,
) -> None:
    """List published throughput that a scenario's `system.anchor` can name, beside what the fitted profile says."""
    from factory_sim.calibration.catalogue import anchor_table

    found = anchor_table(engine, folder)
    _answer(found, f"Anchors of disaggregated DeepSeek, per GPU, against the {engine} profile", as_json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Profile, as `profiles list` names it.")],
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="Draw measured against predicted (PNG or SVG).")
    ] = None,
    as_json: AsJson = False,
    folder: Folder = None,
) -> None:
    """Show one profile: coefficients with units, fit range, error by region, sources."""
    from factory_sim.calibration import generation_tables
    from factory_sim.calibration.catalogue import coefficients, page, regions

    generation = generation_tables.of_profile(name)
    if generation:
        if chart is not None:
            raise typer.BadParameter("image and video models have measured batches and no fit to chart")
        rows = generation_tables.page_table(*generation)
        _answer(rows, f"{generation[0]} on {generation[1]}: measured batches", as_json)
        return
    found = page(name, folder)
    if chart is not None:
        from factory_sim.calibration.catalogue import chart_points
        from factory_sim.reports.charts.accuracy import accuracy_chart

        accuracy_chart(chart_points(found), title=f"{name}: predicted against measured").savefig(chart)
        print(f"{chart} written", file=sys.stderr)
    if as_json:
        _dump(found)
        return
    print(f"{found['profile']}: {found['model']}, {found['gpu']}, {found['engine']}, {found['precision']}")
    _print(coefficients(found), "Coefficients")
    _print(regions(found, folder), "Fit range, and error by region (per cent)")
    print("Sources")
    for source in found["sources"]:
        print(f"  {source}")


@app.command()
def fit(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write the profiles to.")],
    measurements: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Own rows (CSV); added to the packaged ones.")
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Fit the rows of --measurements alone.")] = False,
    model: Annotated[str, typer.Option(help="Only models whose name contains this.")] = "",
    kind: Annotated[
        str, typer.Option(help="serving; or energy, online, generation: the fits beside it, of packaged rows.")
    ] = "serving",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing folder.")] = False,
) -> None:
    """Fit profiles to the packaged rows, or to your own; the packaged files are made by `profiles fit --out DIR`."""
    from factory_sim.calibration.catalogue import fit_other, fit_profiles

    if kind != "serving":
        if measurements is not None or only or model:
            raise typer.BadParameter("--measurements, --only and --model go with --kind serving")
        for line in fit_other(kind, out, force=force):
            print(line)
        return

    for line in fit_profiles(out, measurements, only=only, model=model, force=force, progress=_played):
        print(line)


@app.command()
def estimate(
    model: Annotated[str, typer.Option(help="Model, e.g. DeepSeek-R1.")],
    gpu: Annotated[str, typer.Option(help="GPU, e.g. b200, vr200.")],
    parallelism: Annotated[
        str, typer.Option(help="e.g. tp8, tp8pp1ep8dpaTr1, P3x4-D4x8dep; image and video models: tpN for N GPUs.")
    ],
    precision: Annotated[str, typer.Option(help="bf16, fp8, fp4 or int4; image and video models: bf16.")],
    engine: Annotated[str, typer.Option(help="vllm, sglang or trtllm.")] = "trtllm",
    speculation: Annotated[str, typer.Option(help="none or mtp.")] = "none",
    isl: Annotated[int, typer.Option(help="Longest prompt, tokens (uniform from 0.8 of it).")] = 1024,
    osl: Annotated[int, typer.Option(help="Longest answer, tokens (uniform from 0.8 of it).")] = 1024,
    concurrency: Annotated[
        str | None,
        typer.Option(
            help="Requests in flight on one instance (images or videos in a batch), separated by commas. Left out: "
            "1,4,16,64,256; of an image or video model the batches that were measured.",
            show_default=False,
        ),
    ] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="Date of the software.")] = None,
    like: Annotated[
        str | None, typer.Option("--like", metavar="GPU", help="Measured GPU whose efficiencies to take.")
    ] = None,
    as_json: AsJson = False,
    folder: Folder = None,
) -> None:
    """Say what a system would do, measured or not: TTFT, TPOT and throughput over load, with trust and bands."""
    from factory_sim.calibration import generation_tables
    from factory_sim.calibration.catalogue import estimate_table
    from factory_sim.errors import ProfileError
    from factory_sim.inputs.parallelism import parse_parallelism

    try:
        loads = [int(part) for part in (concurrency or "1,4,16,64,256").split(",")]
    except ValueError:
        raise ProfileError(f"--concurrency: '{concurrency}' is not a list of whole numbers; e.g. 1,4,16") from None
    if generation_tables.is_generation(model):
        if precision.lower() != "bf16":
            raise ProfileError(f"--precision: image and video models were measured in bf16 only, not {precision}")
        gpus = parse_parallelism(parallelism).gpus
        batches = loads if concurrency else generation_tables.measured_batches(model, gpu, gpus)
        found = generation_tables.estimate_table(model, gpu, gpus, batches)
        _answer(found, f"{model} on {parallelism} {gpu}", as_json)
        return
    found = estimate_table(
        model, gpu, engine, precision, parallelism, speculation=speculation, isl=isl, osl=osl, concurrency=loads,
        as_of=as_of, predecessor=like, folder=folder,
    )  # fmt: skip
    _answer(found, f"{model} on {gpu} ({engine}, {precision}, {parallelism}), {isl} in, {osl} out", as_json)


@app.command()
def validate(
    measurements: Annotated[Path, typer.Option(metavar="FILE", help="CSV with the columns of serving.csv.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write predictions (CSV).")] = None,
    kind: Annotated[str, typer.Option(help="serving, energy or online; recognised when left out.")] = "",
    as_json: AsJson = False,
    folder: Folder = None,
) -> None:
    """Predict each row of a file without fitting on it, and report the errors."""
    from factory_sim.calibration.validation import error_frame, validate_file

    found, report, notes = validate_file(measurements, kind, folder)
    for note in notes:
        print(note, file=sys.stderr)
    if out is not None:
        found.to_csv(out, index=False, float_format="%.6g", lineterminator="\n")
        print(f"{out} written", file=sys.stderr)
    if as_json:
        _dump(report)
    else:
        print(f"{report['predicted']} of {report['rows']} rows predicted; absolute errors in per cent")
        _print(error_frame(report), "")


@app.command()
def crossvalidate(
    scheme: Annotated[
        list[str], typer.Option("--scheme", help="concurrency, group, model_gpu, family, gpu; all when left out.")
    ] = [],  # noqa: B006
    kind: Annotated[str, typer.Option(help="serving, energy or online rows.")] = "serving",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write residuals.csv, accuracy.csv and bands.csv.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Leave out, refit, predict: the accuracy table of the documentation, and the bands of each rung of trust."""
    if kind != "serving":
        from factory_sim.calibration.catalogue import crossvalidate_other

        found = crossvalidate_other(kind)
        _answer(found, "Errors of left-out rows, per cent; coverage of the P10-P90 bands", as_json)
        return
    from factory_sim.calibration.accuracy import SCHEMES, SHIPPED, accuracy_table, band_table
    from factory_sim.calibration.accuracy import crossvalidate as leave_out

    def progress(name: str, done: int, of: int) -> None:
        print(f"{name}: fold {done} of {of}", file=sys.stderr)

    residuals = leave_out(schemes=tuple(scheme) or SCHEMES, progress=progress)
    table = accuracy_table(residuals)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, frame in (("residuals", residuals[list(SHIPPED)]), ("accuracy", table), ("bands", band_table(residuals))):
            frame.to_csv(out / f"{name}.csv", index=False, float_format="%.5g", lineterminator="\n")
    _answer(table, "Errors of left-out rows, per cent; coverage of the P10-P90 bands", as_json)


@app.command()
def errors(
    scheme: Annotated[str, typer.Option(help="What was left out: concurrency, group, model_gpu, family, gpu.")] = "model_gpu",
    by: Annotated[
        list[str], typer.Option("--by", help="elsewhere (what else was measured), model, gpu, engine, precision, speculation.")
    ] = ["elsewhere"],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Split the errors of rows left out of the fit by what else was measured of the model, or by what the row is."""
    from factory_sim.calibration.error_split import shipped_residuals, split

    found = split(shipped_residuals(), scheme, tuple(by))
    _answer(found, "Errors of left-out rows, per cent", as_json)


@app.command()
def selfcheck(
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the table instead of comparing with it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Refit a small sample and compare its errors, and what they depend on, with the committed table."""
    from factory_sim.calibration import selfcheck as check

    found = check.measure()
    if write is not None:
        check.write(found, write)
        print(f"{write} written", file=sys.stderr)
    told = [] if write is not None else check.complaints(found, check.committed())
    if as_json:
        _dump({"sample": found, "complaints": told})
    else:
        for row in found:
            print(
                f"{row['mode']} {row['metric']}: {row['runs']} runs left out, median error {row['median_percent']} %, "
                f"mean {row['mean_percent']} %"
            )
    for line in told:
        print(f"error: {line}", file=sys.stderr)
    if told:
        raise typer.Exit(1)


@app.command("import")
def import_results(
    file: Annotated[Path, typer.Argument(help="File or folder of benchmark results of any supported tool.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write the profile to.")],
    model: Annotated[str | None, typer.Option(help="Model, if the file does not tell.")] = None,
    gpu: Annotated[str | None, typer.Option(help="GPU, if the file does not tell.")] = None,
    engine: Annotated[str | None, typer.Option(help="Engine, if the file does not tell.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precision, if the file does not tell.")] = None,
    parallelism: Annotated[str | None, typer.Option(help="e.g. tp8 or P3x4-D4x8dep.")] = None,
    speculation: Annotated[str | None, typer.Option(help="none or mtp; none if the file does not tell.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs of the system.")] = None,
    concurrency: Annotated[float | None, typer.Option(help="Requests in flight, if the file does not tell.")] = None,
    isl: Annotated[float | None, typer.Option(help="Input tokens, if the file does not tell.")] = None,
    osl: Annotated[float | None, typer.Option(help="Output tokens, if the file does not tell.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a profile of your own benchmark results: what was taken, what was dropped, and the error of the fit."""
    from factory_sim.calibration.catalogue import import_profile

    facts = {
        "model": model, "gpu": gpu, "engine": engine, "precision": precision, "parallelism": parallelism,
        "n_gpus": gpus, "concurrency": concurrency, "isl": isl, "osl": osl, "spec_decoding": speculation,
    }  # fmt: skip
    told = import_profile(file, out, facts, force=force, progress=_played)
    if as_json:
        _dump(told)
    else:
        for line in told["lines"]:
            print(line)


@app.command()
def mlperf(
    model: Annotated[
        str | None, typer.Argument(help="Model of the benchmark, e.g. llama2-70b; an index when left out.")
    ] = None,
    accelerator: Annotated[str | None, typer.Option(help="Only this accelerator family, e.g. B200.")] = None,
    scenario: Annotated[str | None, typer.Option(help="Offline, Server or Interactive.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Version of the benchmark, e.g. v5.1.")] = None,
    division: Annotated[str | None, typer.Option(help="closed or open.")] = None,
    as_json: AsJson = False,
) -> None:
    """MLPerf(R) results on a page of their own, as published; never fitted, never beside other figures."""
    from factory_sim.calibration.mlperf import Chosen, closing, mlperf_page, mlperf_rows

    chosen = Chosen(model, scenario, version, accelerator, division)
    if as_json:
        _dump({"results": mlperf_rows(chosen), "footnotes": [line for line in closing() if line]})
    else:
        sys.stdout.write(mlperf_page(chosen))
