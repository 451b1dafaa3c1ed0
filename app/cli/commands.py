"""The commands and their options."""

import importlib.metadata
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.failure import UsageError, failing_in_words
from app.processes import loading
from app.processors import available_cores
from app.targets.specs import SPECS

PLAIN = None
"""Help as plain text, whose lines are wrapped and never cut, whatever the width of the terminal."""

app = typer.Typer(
    name="recast",
    help=(
        "Convert PyTorch weights to verified ONNX and TorchScript, and run the service that does.\n\n"
        "Exit status of every command: 0 done, 1 an error or a failed verification, 2 the command line is wrong, 3 the "
        "verdict is inconclusive, 130 interrupted."
    ),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=PLAIN,
    context_settings={"help_option_names": ["-h", "--help"]},
)
templates_app = typer.Typer(
    help="Graph templates, the weight-free graphs that make repeated conversions fast.", rich_markup_mode=PLAIN
)
app.add_typer(templates_app, name="templates", no_args_is_help=True)
recipes_app = typer.Typer(
    help="Recipes, architectures told as JSON: other heads and bodies without code.", rich_markup_mode=PLAIN
)
app.add_typer(recipes_app, name="recipes", no_args_is_help=True)
keys_app = typer.Typer(help="API keys: what programs and people prove themselves with.", rich_markup_mode=PLAIN)
app.add_typer(keys_app, name="keys", no_args_is_help=True)
projects_app = typer.Typer(
    help="Projects, which own conversions and checkpoints and see nothing of each other.", rich_markup_mode=PLAIN
)
app.add_typer(projects_app, name="projects", no_args_is_help=True)

Host = Annotated[str | None, typer.Option(help="Address to listen on (RECAST_HOST).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (RECAST_PORT).")]
DataDir = Annotated[Path | None, typer.Option(help="Directory of database, store and work files (RECAST_DATA_DIR).")]
Unauthenticated = Annotated[
    bool | None,
    typer.Option(
        "--allow-unauthenticated",
        help="Listen beyond loopback although nobody has to authenticate.",
        show_default=False,
    ),
]
Of = Annotated[str, typer.Option("--server", envvar="RECAST_SERVER", help="Address of the service (RECAST_SERVER).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
ConversionId = Annotated[str, typer.Argument(help="The conversion's id, such as cnv_0195...")]
LOCAL = "http://127.0.0.1:8000"
Server = Annotated[str | None, typer.Option(help="Address of a Recast service, such as http://127.0.0.1:8000.")]
Plugins = Annotated[Path | None, typer.Option(help="Directory of plug-in modules (RECAST_PLUGINS_DIR).")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(importlib.metadata.version("recast-service"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What holds for every command."""
    from app.logs import configure_logging

    configure_logging("console", "warning")  # to standard error; what serves says more, as its settings tell


@app.command()
@failing_in_words
def serve(
    host: Host = None, port: Port = None, data_dir: DataDir = None, allow_unauthenticated: Unauthenticated = None
) -> None:
    """Run everything: api, worker and, unless RECAST_DATABASE_URL is set, a private PostgreSQL."""
    from app.cli.serve import serve as run

    raise typer.Exit(
        run(_settings(host=host, port=port, data_dir=data_dir, allow_unauthenticated=allow_unauthenticated))
    )


@app.command()
@failing_in_words
def api(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    allow_unauthenticated: Unauthenticated = None,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the HTTP api alone; conversions wait until a worker runs."""
    with loading():  # before the settings: what `recast serve` tells comes once its database runs
        from app.cli.api import run_api

    run_api(_settings(host=host, port=port, data_dir=data_dir, allow_unauthenticated=allow_unauthenticated), fd)


@app.command()
@failing_in_words
def worker(data_dir: DataDir = None) -> None:
    """Run a worker alone; any number may share one database and one store."""
    with loading():
        from app.cli.worker import run_worker

    run_worker(_settings(data_dir=data_dir))


@app.command()
@failing_in_words
def convert(
    *,
    weights: Annotated[Path, typer.Argument(help="Checkpoint: .pt, .pth or .safetensors")],
    architecture: Annotated[str, typer.Option("--architecture", "-a", help="Such as torchvision/resnet18")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the artifact goes")],
    target: Annotated[str, typer.Option("--target", "-t", help=" or ".join(SPECS))] = "onnx",
    options: Annotated[str, typer.Option(help="Options of the target as JSON")] = "{}",
    architecture_options: Annotated[str, typer.Option(help="Options of the architecture as JSON")] = "{}",
    allow_missing: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Keys that the checkpoint may lack, such as 'fc.*'; repeatable"),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Where the report goes: .html for the page, anything else for JSON")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Where the bundle (zip) goes")] = None,
    probes: Annotated[Path | None, typer.Option(help="npz of inputs by name to verify with as well")] = None,
    server: Server = None,
    plugins_dir: Plugins = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with")] = available_cores(),
    unverified: Annotated[bool, typer.Option(help="Write the artifact even when verification failed")] = False,
) -> None:
    """Convert one checkpoint, in this process or on a server.

    Exit status: 0 the verdict is a pass, 1 an error or a failed verification, 3 inconclusive.
    """
    from app.cli.conversion_order import Order, order

    wanted: Order = order(
        weights=weights,
        architecture=architecture,
        target=target,
        options=options,
        architecture_options=architecture_options,
        output=output,
        report=report,
        bundle=bundle,
        probes=probes,
        unverified=unverified,
        allow_missing=allow_missing or (),
    )
    if server is not None:
        from app.cli.convert_remotely import convert_remotely

        raise typer.Exit(convert_remotely(wanted, server))
    from app.cli.convert_here import convert_here

    raise typer.Exit(convert_here(wanted, _settings(plugins_dir=plugins_dir).plugins_dir, threads))


@app.command()
@failing_in_words
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as downloaded")],
    key: Annotated[
        Path | None, typer.Option(help="What /.well-known/recast-key answered: check who signed the statement")
    ] = None,
) -> None:
    """Prove a bundle on this machine: digests of its members, and the artifact's outputs on the golden inputs."""
    from app.cli.verify import verify_bundle

    raise typer.Exit(verify_bundle(bundle, key))


@app.command()
@failing_in_words
def architectures(
    query: Annotated[str, typer.Argument(help="Words that name, family or summary must hold")] = "",
    family: Annotated[str | None, typer.Option(help="Only this family")] = None,
    server: Server = None,
    plugins_dir: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """List what can be converted, or describe one architecture when QUERY is its exact name."""
    from app.cli.listing import list_architectures

    plugins = _settings(plugins_dir=plugins_dir).plugins_dir
    list_architectures(query, family, server=server, plugins_dir=plugins, as_json=as_json)


@recipes_app.command("register")
@failing_in_words
def register_recipe(
    file: Annotated[Path, typer.Argument(help="A JSON file, as POST /v1/architectures takes it.")],
    server: Of = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Register a recipe at a service, and print name and version."""
    from app.cli.recipes import register_recipe as register

    register(server, file, as_json=as_json)


@recipes_app.command("delete")
@failing_in_words
def delete_recipe(
    name: Annotated[str, typer.Argument(help="Its name, or name@digest for one version.")], server: Of = LOCAL
) -> None:
    """Delete a recipe of a service; what was converted stays."""
    from app.cli.recipes import delete_recipe as delete

    delete(server, name)


@app.command("list")
@failing_in_words
def list_conversions(
    *,
    server: Of = LOCAL,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed, canceled, timed_out")] = None,
    architecture: Annotated[str | None, typer.Option("--architecture", "-a")] = None,
    label: Annotated[str | None, typer.Option(help="KEY:VALUE")] = None,
    most: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first")] = 20,
    as_json: AsJson = False,
) -> None:
    """List conversions of a service, the newest first."""
    from app.cli.conversions import list_conversions as run

    filters = {"state": state, "architecture": architecture, "label": label}
    run(server, {name: value for name, value in filters.items() if value is not None}, most, as_json=as_json)


@app.command("show")
@failing_in_words
def show_conversion(conversion: ConversionId, server: Of = LOCAL, as_json: AsJson = False) -> None:
    """Show a conversion of a service. Exit status as of convert; 0 while it has not finished."""
    from app.cli.conversions import show_conversion as run

    raise typer.Exit(run(server, conversion, as_json=as_json))


@app.command("cancel")
@failing_in_words
def cancel_conversions(
    conversions: Annotated[list[str], typer.Argument(help="Ids of conversions")],
    server: Of = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Stop conversions of a service."""
    from app.cli.conversions import cancel_conversions as run

    run(server, conversions, as_json=as_json)


@app.command("download")
@failing_in_words
def download_conversion(
    conversion: ConversionId,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Directory that the files go to")] = Path(),
    *,
    bundle: Annotated[bool, typer.Option("--bundle", help="The bundle in place of the artifact")] = False,
    unverified: Annotated[bool, typer.Option("--unverified", help="Even when verification failed")] = False,
    server: Of = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Fetch the artifact of a conversion, or its bundle."""
    from app.cli.conversions import download_conversion as run

    run(server, conversion, folder, bundle=bundle, unverified=unverified, as_json=as_json)


@app.command("logs")
@failing_in_words
def print_log(conversion: ConversionId, server: Of = LOCAL) -> None:
    """Print what a conversion's process printed."""
    from app.cli.conversions import print_log as run

    run(server, conversion)


@templates_app.command("list")
@failing_in_words
def list_templates() -> None:
    """List the templates that `recast convert` keeps for this user."""
    from app.cli.present import show_templates
    from app.cli.template_directory import TemplateDirectory, default_directory

    show_templates(TemplateDirectory(default_directory()).entries())


@templates_app.command("clear")
@failing_in_words
def clear_templates() -> None:
    """Remove the templates that `recast convert` keeps for this user."""
    from app.cli.template_directory import TemplateDirectory, default_directory

    typer.echo(f"{TemplateDirectory(default_directory()).clear()} templates removed")


@templates_app.command("warm")
@failing_in_words
def warm_templates(
    names: Annotated[list[str], typer.Argument(help="Architectures, such as torchvision/resnet50")],
    target: Annotated[list[str] | None, typer.Option("--target", "-t", help="Only these targets")] = None,
    server: Server = None,
    plugins_dir: Plugins = None,
) -> None:
    """Build the templates of architectures ahead, with made-up weights: for this user, or on a server."""
    from app.cli.warm import warm

    plugins = _settings(plugins_dir=plugins_dir).plugins_dir
    raise typer.Exit(warm(names, target or list(SPECS), server, plugins))


@keys_app.command("create")
@failing_in_words
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    project: Annotated[str, typer.Option(help="Name or id of its project.")] = "default",
    scope: Annotated[
        list[str] | None, typer.Option(help="read, convert or admin; read and convert unless told.")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0, help="Days after which it is no longer valid.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it: it is shown this once, and only its sha256 is kept."""
    from app.cli.keys import create_key as create
    from app.database.keys import SCOPES

    scopes = scope or ["read", "convert"]
    if unknown := set(scopes) - set(SCOPES):
        raise UsageError(f"Unknown scopes: {', '.join(sorted(unknown))}.", hint=f"Scopes: {', '.join(SCOPES)}.")
    create(_settings(data_dir=data_dir), name, project, list(dict.fromkeys(scopes)), days)


@keys_app.command("list")
@failing_in_words
def list_keys(data_dir: DataDir = None) -> None:
    """List the keys of all projects, without their secrets."""
    from app.cli.keys import list_keys as show

    show(_settings(data_dir=data_dir))


@keys_app.command("revoke")
@failing_in_words
def revoke_key(
    id: Annotated[str, typer.Argument(help="The key's id, such as key_0195...")], data_dir: DataDir = None
) -> None:
    """Make a key useless, on running services too."""
    from app.cli.keys import revoke_key as revoke

    revoke(_settings(data_dir=data_dir), id)


@projects_app.command("create")
@failing_in_words
def create_project(
    name: Annotated[str, typer.Argument(help="The project's name.")],
    *,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Requests a minute of each of its keys.")
    ] = None,
    uploads: Annotated[int | None, typer.Option(min=0, help="Files that may be sent at once.")] = None,
    queued: Annotated[int | None, typer.Option(min=0, help="Conversions that may wait.")] = None,
    running: Annotated[int | None, typer.Option(min=0, help="Conversions that may run at once.")] = None,
    conversions_per_day: Annotated[int | None, typer.Option(min=0, help="Conversions a day.")] = None,
    stored_bytes: Annotated[int | None, typer.Option(min=0, help="Bytes of checkpoints.")] = None,
    share: Annotated[
        float | None, typer.Option(min=0.001, help="Of the machines: as much as so many other projects.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a project and print its id."""
    from app.cli.keys import create_project as create
    from app.database.limits import Limits

    limits = Limits(
        requests_per_minute=requests_per_minute,
        uploads=uploads,
        queued=queued,
        running=running,
        conversions_per_day=conversions_per_day,
        stored_bytes=stored_bytes,
        share=share,
    )
    create(_settings(data_dir=data_dir), name, limits)


@app.command()
@failing_in_words
def config(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Print the effective settings, secrets masked, and what each one means."""
    from app.cli.present import show_settings

    settings = _settings(data_dir=data_dir)
    if as_json:
        typer.echo(json.dumps(settings.model_dump(mode="json"), indent=2))
    else:
        show_settings(settings)


@app.command("claim-store")
@failing_in_words
def claim_store(
    data_dir: DataDir = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="From another database too, whose files in it are deleted in time.")
    ] = False,
) -> None:
    """Make the store that the settings name this database's own: after it moved, or was emptied for good."""
    from app.cli.store import claim_store as claim

    claim(_settings(data_dir=data_dir), take_over)


@app.command()
@failing_in_words
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest schema, which api and workers do as well when they start."""
    from app.cli.processes import migrated_database

    with migrated_database(_settings(data_dir=data_dir)):
        typer.echo("The database has the newest schema.")


@app.command()
@failing_in_words
def backup(
    directory: Annotated[Path, typer.Argument(help="Where it goes; an earlier backup there is brought up to date.")],
    data_dir: DataDir = None,
) -> None:
    """Copy database and store, as they are at one moment, into a directory; the service may run meanwhile."""
    from app.cli.backup import backup as back_up

    raise typer.Exit(back_up(_settings(data_dir=data_dir), directory))


@app.command()
@failing_in_words
def restore(
    directory: Annotated[Path, typer.Argument(help="What `recast backup` wrote.")],
    data_dir: DataDir = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Although the database holds checkpoints or conversions, which are lost.")
    ] = False,
) -> None:
    """Make database and store what they were when a backup was taken; api and workers must be stopped."""
    from app.cli.backup import restore as put_back

    put_back(_settings(data_dir=data_dir), directory, replace)


@app.command()
@failing_in_words
def doctor(data_dir: DataDir = None) -> None:
    """Check that this machine can run Recast, part by part."""
    from app.cli.doctor import examine

    raise typer.Exit(examine(_settings(data_dir=data_dir)))


def _settings(**given: Any) -> Any:
    """The environment's settings, overridden by the options that were given."""
    from app.cli.secrets import inherited_secrets
    from app.settings import Settings

    wanted: dict[str, Any] = {**inherited_secrets(), **given}
    return Settings(**{name: value for name, value in wanted.items() if value is not None})
