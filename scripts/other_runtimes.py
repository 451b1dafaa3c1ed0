"""Files made for other runtimes (option ``runtime``), run in them: golden inputs in, outputs within their gates out."""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from app.api.conversion_request import target_options
from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry
from app.conversion.job import ConversionJob
from app.conversion.pipeline import convert
from app.domain.errors import RecastError
from app.targets.specs import SPECS
from scripts.field_cases import NoTemplates, unheard

PLUGINS = Path(__file__).parent.parent / "tests" / "plugins"
TRIAL = Path(__file__).with_name("runtime_trial.py")
RUNTIMES = {
    "ort-1.17": ("onnxruntime==1.17.3", "numpy<2"),
    "ort-1.20": ("onnxruntime==1.20.1", "numpy<2"),
    "opencv-4": ("opencv-python-headless>=4.9,<5", "numpy"),
}
"""What is installed for each: the oldest and a middle one of onnxruntime, and a reader of another house."""
ARCHITECTURES = ("sample/tied", "torchvision/mobilenet_v3_small", "transformers/bert")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
SMALL = {"transformers/bert": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2}}


def environment(directory: Path, name: str) -> Path:
    """The interpreter of the runtime's own environment, made where it is not there."""
    python = directory / name / "bin" / "python"
    if not python.exists():
        venv.create(directory / name, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *RUNTIMES[name]], check=True)
    return python


def tried(runtime: str, architecture: str, precision: str, python: Path, place: Path) -> tuple[str, bool]:
    """What became of one file, in words, and whether its runtime failed on it."""
    try:
        asked = target_options(SPECS["onnx"], {"runtime": runtime, "precision": precision})
    except RecastError as error:
        return f"refused: {error.detail[:100]}", False
    registry = load_registry(PLUGINS)
    options = SMALL.get(architecture, {})
    checkpoint = save_checkpoint(registry, architecture, options, place / "weights.pth")
    (place / "work").mkdir()
    job = ConversionJob(
        conversion_id=f"{runtime}-{architecture}",
        checkpoint=checkpoint,
        checkpoint_sha256="0" * 64,
        architecture=architecture,
        architecture_options=options,
        options=asked,
        work_dir=place / "work",
        plugins_dir=PLUGINS,
    )
    try:
        report = convert(job, unheard, NoTemplates()).report
    except RecastError as error:
        return f"refused: {error.detail[:100]}", False
    verdict = report.verification.verdict.value
    if not report.verification.verdict.proved:
        return f"{verdict}: {report.verification.findings[0].detail[:100]}", False
    files = [str(job.work_dir / report.artifact.filename), str(job.work_dir / "golden.npz")]
    trial = subprocess.run([str(python), str(TRIAL), *files], capture_output=True, text=True, check=False)
    ran = json.loads(trial.stdout) if trial.returncode == 0 else {"error": trial.stderr.strip()[-160:]}
    told = ran.get("error") or f"worst {ran['ratio']:.2f} of its gate in {ran['runtime']}"
    return f"{verdict}, opset {report.export.opset}, IR {report.export.ir_version}; {told}", "error" in ran


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "recast-runtimes")
    parser.add_argument("--only", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS)
    arguments = parser.parse_args()
    failed = False
    print("| runtime | architecture | precision | outcome |\n|---|---|---|---|")
    for runtime in arguments.only:
        python = environment(arguments.environments, runtime)
        for architecture in arguments.architectures:
            for precision in arguments.precisions:
                with tempfile.TemporaryDirectory() as place:
                    outcome, failing = tried(runtime, architecture, precision, python, Path(place))
                failed |= failing
                print(f"| {runtime} | {architecture} | {precision} | {outcome} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
