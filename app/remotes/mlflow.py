"""MLflow's registry by its REST API: which file a model version is, and registering one.

The library mlflow-skinny reads credentials from variables of the whole process, and connects to whatever an answer
names; a worker serves many projects.
"""

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx2

from app.domain.errors import FetchFailed, InvalidRequest, PublishFailed
from app.remotes.egress import Egress
from app.remotes.grants import Remote
from app.remotes.http import TIMEOUT, Interrupted, ask, authorization, send
from app.remotes.published import Model, PublishedFile

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""How files of weights end, the more trusted first."""
MOST_LISTED = 1000
EXPERIMENT = "recast"
ARTIFACTS = "mlflow-artifacts:"
"""The scheme of what the server keeps itself and hands out by HTTP."""


def model_parts(uri: str) -> tuple[str, str, str]:
    """Name, version and path of ``models:/name/version/path``; the path may be empty. Raises InvalidRequest."""
    steps = uri.removeprefix("models:/").split("/", 2)
    if len(steps) < 2 or not all(steps):
        raise InvalidRequest("A registered model is written models:/name/version, or models:/name/version/file.")
    return steps[0], steps[1], steps[2] if len(steps) == 3 else ""


async def located(uri: str, remote: Remote, egress: Egress) -> str:
    """Where the file of a registered model is: a URL of the server, or a URI of another place.

    Raises FetchFailed, Interrupted, AddressNotAllowed.
    """
    name, version, inside = model_parts(uri)
    async with egress.client(verify=remote.ssl_context(), timeout=TIMEOUT) as client:
        server = _Server(client, remote, FetchFailed)
        told = await server.ask("GET", "mlflow/model-versions/get-download-uri", name=name, version=version)
        root = str(told["artifact_uri"])
        if not root.startswith(ARTIFACTS):
            return f"{root.rstrip('/')}/{inside}" if inside else root
        folder = urlsplit(root).path.strip("/")
        inside = inside or await _only_weights(server, folder, name)
    return f"{server.root}/mlflow-artifacts/artifacts/{quote(f'{folder}/{inside}')}"


async def _only_weights(server: "_Server", folder: str, name: str) -> str:
    """The one file of weights below a folder, relative to it. Raises FetchFailed where there is none, or several."""
    waiting, found = [""], list[str]()
    while waiting and len(found) + len(waiting) <= MOST_LISTED:
        place = waiting.pop()
        listed = await server.ask("GET", "mlflow-artifacts/artifacts", path=f"{folder}/{place}".rstrip("/"))
        for file in listed.get("files", ()):
            path = f"{place}/{PurePosixPath(str(file['path'])).name}".lstrip("/")
            if file.get("is_dir"):
                waiting.append(path)
            elif path.endswith(WEIGHTS):
                found.append(path)
    for suffix in WEIGHTS:
        of_kind = [path for path in found if path.endswith(suffix)]
        if len(of_kind) == 1:
            return of_kind[0]
        if of_kind:
            break
    raise FetchFailed(
        f"The model {name} holds {len(found)} files of weights, not one.",
        hint="Name one: models:/name/version/path/of/the/file.",
        candidates=sorted(found),
    )


async def register_model(uri: str, model: Model, remote: Remote, egress: Egress) -> dict[str, Any]:
    """Make a conversion a version of the registered model ``mlflow:name``; gives the receipt.

    A version of this conversion that is there already is the receipt. Raises PublishFailed, Interrupted,
    AddressNotAllowed.
    """
    name = uri.removeprefix("mlflow:").strip("/") or model.default_name
    async with egress.client(verify=remote.ssl_context(), timeout=TIMEOUT) as client:
        server = _Server(client, remote, PublishFailed)
        version = await _version_of(server, name, model.conversion_id)
        if version is None:
            run = await _run(server, model)
            await _upload(server, run, model)
            await server.ask("POST", "mlflow/registered-models/create", name=name, existing=True)
            made = await server.ask(
                "POST",
                "mlflow/model-versions/create",
                name=name,
                source=f"{run['info']['artifact_uri']}/model",
                run_id=run["info"]["run_id"],
                tags=_tags(model),
            )
            version = str(made["model_version"]["version"])
    return {"uri": f"models:/{name}/{version}", "name": name, "version": version, "sha256": model.artifact.sha256}


async def _version_of(server: "_Server", name: str, conversion_id: str) -> str | None:
    """The version of a registered model that is of a conversion."""
    quoted = name.replace("'", "")
    found = await server.ask("GET", "mlflow/model-versions/search", filter=f"name='{quoted}'", max_results="200")
    for version in found.get("model_versions", ()):
        if {"key": "recast.conversion", "value": conversion_id} in version.get("tags", ()):
            return str(version["version"])
    return None


async def _run(server: "_Server", model: Model) -> dict[str, Any]:
    """The run that the files belong to: one that an earlier try made, or a new one."""
    known = await server.find("GET", "mlflow/experiments/get-by-name", experiment_name=EXPERIMENT)
    if known is None:
        made = await server.ask("POST", "mlflow/experiments/create", name=EXPERIMENT)
        experiment = str(made["experiment_id"])
    else:
        experiment = str(known["experiment"]["experiment_id"])
    found = await server.ask(
        "POST",
        "mlflow/runs/search",
        experiment_ids=[experiment],
        filter=f"tags.`recast.conversion` = '{model.conversion_id}'",
        max_results=1,
    )
    if found.get("runs"):
        run: dict[str, Any] = found["runs"][0]
        return run
    made = await server.ask(
        "POST", "mlflow/runs/create", experiment_id=experiment, run_name=model.conversion_id, tags=_tags(model)
    )
    run = made["run"]
    await server.ask("POST", "mlflow/runs/update", run_id=run["info"]["run_id"], status="FINISHED")
    return run


async def _upload(server: "_Server", run: dict[str, Any], model: Model) -> None:
    root = str(run["info"]["artifact_uri"])
    if not root.startswith(ARTIFACTS):
        raise PublishFailed("The MLflow server does not take files itself; start it with --artifacts-destination.")
    folder = urlsplit(root).path.strip("/") + "/model"
    for file in model.files:
        await server.put(f"mlflow-artifacts/artifacts/{quote(f'{folder}/{file.filename}')}", file)
    await server.put_text(f"mlflow-artifacts/artifacts/{quote(f'{folder}/MLmodel')}", _description(model))


def _description(model: Model) -> str:
    """MLmodel: which flavour the file is of."""
    flavour = model.serving.mlflow_flavour or "recast"
    return f"artifact_path: model\nflavors:\n  {flavour}:\n    data: {model.artifact.filename}\n"


def _tags(model: Model) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in model.facts().items()]


class _Server:
    """An MLflow server, asked with a remote's credentials. ``refused``: what its refusals are raised as."""

    def __init__(self, client: httpx2.AsyncClient, remote: Remote, refused: type[FetchFailed] | type[PublishFailed]):
        if remote.endpoint is None:
            raise refused("The remote has no endpoint; its operator has to name the MLflow server.")
        self.root = f"{remote.endpoint.rstrip('/')}/api/2.0"
        self._client = client
        self._headers = authorization(remote)
        self._refused = refused

    async def ask(self, method: str, path: str, /, *, existing: bool = False, **told: Any) -> dict[str, Any]:
        """``existing``: that what is to be made is there already is no error."""
        try:
            found = await self.find(method, path, missing=False, **told)
        except PublishFailed as error:
            if not (existing and "RESOURCE_ALREADY_EXISTS" in error.detail):
                raise
            found = None
        return found or {}

    async def find(self, method: str, path: str, /, *, missing: bool = True, **told: Any) -> dict[str, Any] | None:
        url = f"{self.root}/{path}"
        if method == "GET":
            url, told = f"{url}?{urlencode(told)}", {}
        body = told if method == "POST" else None
        return await ask(
            self._client, url, self._headers, method=method, told=body, refused=self._refused, missing=missing
        )

    async def put(self, path: str, file: PublishedFile) -> None:
        headers = {**self._headers, "content-type": "application/octet-stream", "content-length": str(file.size)}
        await self._sent(path, headers, file.open())

    async def put_text(self, path: str, text: str) -> None:
        await self._sent(path, {**self._headers, "content-type": "text/plain"}, text.encode())

    async def _sent(self, path: str, headers: dict[str, str], content: Any) -> None:
        url = f"{self.root}/{path}"
        answer = await send(self._client, url, headers, method="PUT", content=content, refused=self._refused)
        await answer.aclose()
        if answer.status_code >= 500:
            raise Interrupted(f"{url} answers {answer.status_code}")
        if not answer.is_success:
            raise self._refused(f"{url} answers {answer.status_code}.")
