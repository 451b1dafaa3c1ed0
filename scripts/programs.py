"""See scripts/programs."""

import argparse
import html
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import onnxruntime
import torch
from torchvision.models import squeezenet1_1

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.service.running import Service, free_port

ARCHITECTURE = "torchvision/squeezenet1_1"
NODE_PACKAGES = ("onnxruntime-node@1.30.0", "onnxruntime-web@1.30.0")
Outcome = str
"""What became of a program, in one line; FAILED begins that of one that did not run."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnxruntime-headers", type=Path, help="where onnxruntime_cxx_api.h lies")
    headers = parser.parse_args().onnxruntime_headers
    with tempfile.TemporaryDirectory(prefix="recast-programs-") as directory:
        place = Path(directory)
        runs = {
            "Python": in_python,
            "JavaScript": in_node,
            "C++": lambda place, target, program: in_cpp(place, target, program, headers),
        }
        failed = False
        for target, language, program in shown(place):
            outcome = runs[language](place, target, program)
            failed |= outcome.startswith("FAILED")
            print(f"{target:<12} {language:<11} {outcome}", flush=True)
    return int(failed)


def shown(place: Path) -> Iterator[tuple[str, str, str]]:
    """Target, language and program of each conversion's page; the artifacts lie in ``place``."""
    content = io.BytesIO()
    torch.save(squeezenet1_1().state_dict(), content)
    service = Service(place / "data", free_port())
    service.start()
    try:
        with httpx.Client(base_url=service.url, timeout=600) as client:
            (entry,) = [
                item
                for item in client.get("/v1/architectures", params={"query": "squeezenet1_1"}).json()["items"]
                if item["name"] == ARCHITECTURE
            ]
            for target in entry["targets"]:
                answer = client.post(
                    "/v1/conversions",
                    headers={"Prefer": "wait=300"},
                    files={"file": ("weights.pth", content.getvalue())},
                    data={"architecture": ARCHITECTURE, "target": target},
                )
                if answer.is_error:
                    raise SystemExit(f"The conversion to {target} failed: {answer.text[:2000]}")
                conversion = answer.json()
                links, artifact = conversion["links"], conversion["artifact"]
                (place / artifact["filename"]).write_bytes(client.get(links["artifact"]).content)
                if beside := conversion["artifact_data"]:
                    (place / beside["filename"]).write_bytes(client.get(links["artifact_data"]).content)
                page = client.get(f"/conversions/{conversion['id']}", headers={"Accept": "text/html"}).text
                section = page.split('id="run"')[1].split("</section>")[0]
                for language, program in re.findall(
                    r"<summary>(.+?)</summary><pre[^>]*>(.*?)</pre>", section, re.DOTALL
                ):
                    yield target, html.unescape(language), html.unescape(program)
    finally:
        service.stop()


def in_python(place: Path, target: str, program: str) -> Outcome:
    (place / f"{target}.py").write_text(program)
    return ran(place, [sys.executable, f"{target}.py"])


def in_node(place: Path, target: str, program: str) -> Outcome:
    """With the runtime for node and with the one for browsers, which node loads too."""
    if shutil.which("npm") is None:
        return "not run: there is no npm here"
    if not (place / "node_modules").is_dir():
        # No scripts: those of onnxruntime-node fetch CUDA libraries that this does not use.
        installing = ran(place, ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", *NODE_PACKAGES])
        if installing.startswith("FAILED"):
            return installing
    outcomes = {}
    for package in ("onnxruntime-node", "onnxruntime-web"):
        script = place / f"{target}-{package}.mjs"
        script.write_text(program.replace('from "onnxruntime-web"', f'from "{package}"'))
        outcomes[package] = ran(place, ["node", script.name])
    broken = next((outcome for outcome in outcomes.values() if outcome.startswith("FAILED")), None)
    return broken or "; ".join(f"{package} {outcome}" for package, outcome in outcomes.items())


def in_cpp(place: Path, target: str, program: str, headers: Path | None) -> Outcome:
    if "onnxruntime_cxx_api.h" in program:
        if headers is None:
            return "not run: --onnxruntime-headers is not given"
        (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
        shutil.copy(library, place / "libonnxruntime.so.1")
        flags = [f"-I{headers}", str(place / "libonnxruntime.so.1"), f"-Wl,-rpath,{place}"]
    else:
        wheel = Path(torch.__file__).parent
        includes = [f"-I{wheel}/include", f"-I{wheel}/include/torch/csrc/api/include"]
        flags = [*includes, f"-L{wheel}/lib", "-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{wheel}/lib"]
    (place / f"{target}.cpp").write_text(program)
    built = ran(place, ["g++", "-std=c++20", f"{target}.cpp", *flags, "-o", f"{target}-cpp"])
    return built if built.startswith("FAILED") else ran(place, [f"./{target}-cpp"])


def ran(place: Path, command: list[str]) -> Outcome:
    """The last line that it printed."""
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        return f"FAILED {command[0]}: {done.stderr.strip()[-600:]}"
    return f"ran: {(done.stdout.strip().splitlines() or ['nothing printed'])[-1]}"


if __name__ == "__main__":
    raise SystemExit(main())
