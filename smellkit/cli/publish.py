"""`smellkit run`, `site` and `doctor`: from notebooks to pages, and what this machine lacks for it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("notebooks", nargs=-1)
@click.option("--profile", default="quick", show_default=True, help="A set of parameters in notebooks/profiles.yaml.")
@click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter, in every notebook that has it.")
@click.option("--data", type=click.Path(path_type=Path), help="A folder of recordings instead of the sample.")
@click.option("--force", is_flag=True, help="Run also what is up to date.")
@click.option("--timeout", default=600, show_default=True, help="Seconds that one cell may take.")
@click.option("--workers", default=0, help="How many run at once; as many as there are cores by default.")
@click.option("--scheduler", default="", metavar="tcp://HOST:PORT", help="A dask scheduler instead of this machine.")
@click.option("--stop/--keep-going", help="End the batch at the first failure, or only what reads its runs (default).")
def run(notebooks, pairs, **how):
    """Execute NOTEBOOKS (names or numbers; all without any) side by side, those that are not up to date."""
    from smellkit import batch, options

    began = time.monotonic()
    results = batch.run(notebooks, given=options.parse(pairs), **how, progress=click.echo)
    seconds = sum(result.seconds for result in results)
    click.echo(f"{'in all':<36} {seconds:6.1f} s, done in {time.monotonic() - began:.1f} s")
    failed = [result for result in results if result.error]
    for result in failed:
        click.secho(f"Error: {result.error}", fg="red", err=True)
        click.echo(f"The notebook as far as it came: {result.output}", err=True)
    if left := [result.notebook for result in results if result.status == batch.LEFT]:
        click.echo(f"Not reached: {', '.join(left)}", err=True)
    if failed:
        sys.exit(1)


@click.command()
@click.option("--from", "source", default="", metavar="SET", help="quick, full, quick-<folder>, or published.")
@click.option("--data", type=click.Path(path_type=Path), help="The data folder of the run to show, as for `run`.")
@click.option("--profile", default="", help="The profile of the run to show, as for `run`.")
@click.option("--preview", is_flag=True, help="Do without Quarto even where it is installed.")
@click.option("--strict", is_flag=True, help="Exit with 1 when the log holds a warning.")
@click.option("--publish", is_flag=True, help="Also copy notebooks to site/notebooks and results to README.md.")
def site(source, data, profile, preview, strict, publish):
    """Build the pages from executed notebooks; the last run's unless --from, --profile or --data say otherwise."""
    from smellkit import batch, options
    from smellkit import site as sites

    if not source and (data or profile):
        source = batch.set_name(profile or "quick", data)
    key = sites.made_of(source, quarto=not preview)
    built = None if publish else sites.kept(key)
    if built is None:
        parts = options.resolve("smellkit.study.pages:parts")()
        if publish:
            count = sites.publish(source, parts={"headlines": parts["headlines"]})
            click.echo(f"Published {count} notebooks in site/notebooks.")
        substances = options.resolve("smellkit.study.odour.substances:pages")()
        how = {"quarto": not preview, "parts": parts, "pages": substances, "progress": click.echo}
        built = sites.build(source, key=key, **how)
    for warning in built.warnings:
        click.secho(f"Warning: {warning}", fg="yellow", err=True)
    click.echo(f"The site lies in {built.index}")
    if built.by == "Quarto":
        click.echo(f"Its search needs a server: `python -m http.server --directory {built.index.parent}`")
    if strict and built.warnings:
        click.secho(f"Error: {len(built.warnings)} warnings; the whole log is {built.log}", fg="red", err=True)
        sys.exit(1)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
def doctor(as_json):
    """Say what this machine has, what is missing, and how to get it; exit 1 when something required is missing."""
    from smellkit import doctor as doctors

    findings = doctors.examine()
    table = [asdict(finding) for finding in findings]
    click.echo(json.dumps(table, indent=1, ensure_ascii=False) if as_json else doctors.as_text(findings))
    if any(finding.level == "missing" for finding in findings):
        sys.exit(1)
