"""Reports as a finished conversion leaves them, made from the domain types alone."""

from typing import Any

from app.domain.architecture import InputSpec, OutputSpec, Signature
from app.domain.checkpoint import CheckpointInspection, LoadReport, ParameterReport, Repair, TensorInfo
from app.domain.errors import Problem
from app.domain.report import (
    AxisCertificate,
    AxisTrial,
    ConversionReport,
    Departure,
    Detection,
    ExportReport,
    Finding,
    GateConstants,
    InitializerEntry,
    Latency,
    LayerDetection,
    Ledger,
    LedgerEntry,
    Matrix,
    MatrixCell,
    OutputParity,
    ProbeResult,
    ProducedFile,
    Reason,
    Rung,
    Sensitivity,
    TemplateUse,
    Verdict,
    VerificationReport,
)

LAYERS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


def tensors(prefix: str = "") -> tuple[TensorInfo, ...]:
    listed = [
        TensorInfo(name=f"{prefix}conv1.weight", shape=(64, 3, 7, 7), dtype="float32", bytes=37632, trainable=True)
    ]
    for layer in LAYERS:
        listed += [
            TensorInfo(
                name=f"{prefix}{layer}.conv1.weight",
                shape=(64, 64, 3, 3),
                dtype="float32",
                bytes=147456,
                trainable=True,
            ),
            TensorInfo(
                name=f"{prefix}{layer}.bn1.running_var", shape=(64,), dtype="float32", bytes=256, trainable=False
            ),
            TensorInfo(
                name=f"{prefix}{layer}.bn1.num_batches_tracked", shape=(), dtype="int64", bytes=8, trainable=False
            ),
        ]
    listed.append(
        TensorInfo(name=f"{prefix}fc.weight", shape=(1000, 512), dtype="float32", bytes=2048000, trainable=True)
    )
    return tuple(listed)


def ledger(listed: tuple[TensorInfo, ...]) -> Ledger:
    entries, initializers = [], []
    for tensor in listed:
        if tensor.name.endswith("num_batches_tracked"):
            entries.append(LedgerEntry(tensor=tensor.name, ledger_class="unused", bytes=tensor.bytes))
            continue
        kind = "folded" if "running_var" in tensor.name else "transposed" if "fc" in tensor.name else "identical"
        entries.append(
            LedgerEntry(tensor=tensor.name, ledger_class=kind, bytes=tensor.bytes, initializers=(tensor.name,))
        )  # type: ignore[arg-type]
        initializers.append(
            InitializerEntry(
                name=tensor.name,
                origin="fold" if kind == "folded" else "tensor",
                bytes=tensor.bytes,
                sources=(tensor.name,),
            )
        )
    initializers.append(InitializerEntry(name="val_12", origin="constant", bytes=4096, detail="position ids"))
    by_class: dict[str, int] = {}
    for entry in entries:
        by_class[entry.ledger_class] = by_class.get(entry.ledger_class, 0) + entry.bytes
    by_origin: dict[str, int] = {}
    for initializer in initializers:
        by_origin[initializer.origin] = by_origin.get(initializer.origin, 0) + initializer.bytes
    return Ledger(
        entries=tuple(entries),
        initializers=tuple(initializers),
        uploaded_bytes=sum(tensor.bytes for tensor in listed),
        artifact_bytes=sum(initializer.bytes for initializer in initializers),
        bytes_by_class=by_class,
        bytes_by_origin=by_origin,
        passed=True,
    )


def probe(name: str, ratio: float, batch: int) -> ProbeResult:
    gate = 8.4e-6
    return ProbeResult(
        probe=name,
        seed=17,
        sizes={"batch": batch},
        outputs=(
            OutputParity(
                output="logits",
                dtype="float32",
                shape=(batch, 1000),
                error=gate * ratio,
                gate=gate,
                ratio=ratio,
                scale=11.2,
                eager_error=gate / 8.3,
                passed=ratio <= 1,
            ),
            OutputParity(
                output="features",
                part="400 of axis 1",
                dtype="float32",
                shape=(batch, 512),
                error=2.1e-7 * ratio,
                gate=2.1e-7,
                ratio=ratio / 3,
                scale=0.4,
                eager_error=2e-8,
                passed=ratio <= 3,
            ),
        ),
        passed=ratio <= 1,
    )


def verification(**changes: Any) -> VerificationReport:
    listed = tensors()
    values: dict[str, Any] = {
        "verdict": Verdict.pass_with_notes,
        "findings": (
            Finding(
                reason=Reason.unused_tensors,
                severity="note",
                detail="8 num_batches_tracked counters have no use in inference.",
            ),
            Finding(
                reason=Reason.blind_layers,
                severity="note",
                detail="The probes would not notice a perturbation in layer4.1.",
            ),
        ),
        "mode": "full",
        "gate": GateConstants(K=8, c=4, u=2**-24),
        "oracle": "fp64",
        "probes": (
            probe("normal-0", 0.13, 2),
            probe("normal-1", 0.11, 2),
            probe("normal-2", 0.17, 2),
            probe("small-scale", 0.021, 2),
            probe("large-scale", 0.31, 2),
            probe("batch=1", 0.09, 1),
            probe("batch=7", 0.16, 7),
        ),
        "dims": (
            AxisCertificate(
                input="input",
                position=0,
                axis="batch",
                asked="dynamic",
                delivered="dynamic",
                trials=(
                    AxisTrial(size=1, passed=True, worst_ratio=0.09),
                    AxisTrial(size=2, passed=True, worst_ratio=0.13),
                    AxisTrial(size=7, passed=True, worst_ratio=0.16),
                ),
                passed=True,
            ),
        ),
        "deterministic": True,
        "eval_mode": True,
        "sensitivity": Sensitivity(per_output={"logits": 412000.0, "features": 98000.0}, threshold=100),
        "detection": Detection(
            power=0.94,
            trials=tuple(
                LayerDetection(
                    layer=layer,
                    tensor=f"{layer}.conv1.weight",
                    perturbation="one element +10 %",
                    ratio=0.6 if layer == "layer4.1" else 37.0,
                    seen=layer != "layer4.1",
                )
                for layer in LAYERS
            ),
            blind_layers=("layer4.1",),
        ),
        "matrix": Matrix(
            cells=(
                MatrixCell(cell="eager fp32", kind="reference", worst_ratio=0.12, seconds=0.041),
                MatrixCell(cell="captured graph", kind="capture", worst_ratio=0.12, seconds=0.05),
                MatrixCell(cell="onnx reference evaluator", kind="translation", skipped="would take 94 s"),
                MatrixCell(
                    cell="onnxruntime, no graph optimisation", kind="translation", worst_ratio=0.13, seconds=0.02
                ),
                MatrixCell(cell="onnxruntime, all optimisations", kind="runtime", worst_ratio=0.17, seconds=0.011),
            ),
            culprit=None,
        ),
        "ledger": ledger(listed),
        "latency": Latency(eager_p50=0.0312, eager_p95=0.0391, artifact_p50=0.0141, artifact_p95=0.0163, runs=30),
        "timings": {"oracle": 0.31, "runtime": 0.12, "ledger": 0.09, "detection": 0.22},
    }
    return VerificationReport(**(values | changes))


def report(**changes: Any) -> ConversionReport:
    """A resnet18 that passed with notes."""
    listed = tensors()
    values: dict[str, Any] = {
        "conversion_id": "cnv_0195e0d4b8a27c3f9d1e5a6b7c8d9e0f",
        "created_at": "2026-11-25T10:00:00Z",
        "architecture": "torchvision/resnet18",
        "family": "resnet",
        "library": "torchvision",
        "library_version": "0.29.1",
        "signature": Signature(
            inputs=(
                InputSpec(
                    name="input", shape=("batch", 3, 224, 224), preprocessing="For the published weights: rescaled."
                ),
            ),
            outputs=(OutputSpec(name="logits"), OutputSpec(name="features")),
        ),
        "target": "onnx",
        "options": {"opset": 18, "exporter": "auto", "strict": True},
        "checkpoint_sha256": "9f" * 32,
        "checkpoint_filename": "resnet18-epoch90.pth",
        "checkpoint": CheckpointInspection(
            format="torch-zip",
            bytes=46_838_211,
            nesting=("model",),
            candidates=("model",),
            tensors=tensors("module."),
            parameter_count=11_689_512,
            tensor_bytes=46_758_048,
            dtypes={"float32": 102, "int64": 20},
        ),
        "load": LoadReport(
            strict=True,
            nesting=("model",),
            repair=Repair(stripped_prefix="module.", keys=122, examples=(("module.conv1.weight", "conv1.weight"),)),
        ),
        "parameters": ParameterReport(
            total=11_689_512, trainable=11_689_512, buffers=9_620, bytes=46_758_048, tensors=listed
        ),
        "export": ExportReport(
            target="onnx",
            exporter="dynamo",
            rungs=(Rung(exporter="dynamo", outcome="succeeded", seconds=4.31),),
            opset=18,
            ir_version=10,
            input_names=("input",),
            output_names=("logits", "features"),
            dynamic_axes={"input": {0: "batch"}},
            template=TemplateUse(state="built", key="ab" * 32, seconds=0.41),
        ),
        "verification": verification(),
        "artifact": ProducedFile(
            role="artifact", filename="model.onnx", sha256="1c" * 32, bytes=46_812_300, media_type="application/onnx"
        ),
        "timings": {
            "inspect": 0.03,
            "build": 0.05,
            "load": 0.04,
            "export": 4.72,
            "verify": 0.91,
            "package": 0.08,
            "publish": 0.02,
        },
        "environment": {"python": "3.11.9", "torch": "2.14.1", "onnxruntime": "1.32.0", "cpu": "2 cores"},
        "peak_memory_bytes": 912_000_000,
    }
    return ConversionReport(**(values | changes))


def failed_report() -> ConversionReport:
    """The same net whose artifact departs in layer3.1."""
    detail = "Output logits differs by 3.1e-2, 3 690 times its gate, in probe normal-0."
    return report(
        problem=Problem(
            code="parity_failed",
            title="The artifact does not compute what the model computes",
            status=422,
            detail=detail,
            stage="verify",
            hint="Try exporter=torchscript, or read which module departs first.",
        ),
        verification=verification(
            verdict=Verdict.fail,
            findings=(Finding(reason=Reason.parity, severity="fail", detail=detail),),
            probes=(
                probe("normal-0", 3690.0, 2),
                probe("normal-1", 2210.0, 2),
                probe("large-scale", float("nan"), 2),
                ProbeResult(probe="batch=7", sizes={"batch": 7}, passed=False, reason="the runtime refused this size"),
            ),
            departure=Departure(module="layer3.1", kind="BasicBlock", value="layer3.1.relu", ratio=812.0),
            matrix=Matrix(
                cells=(
                    MatrixCell(cell="eager fp32", kind="reference", worst_ratio=0.12, seconds=0.041),
                    MatrixCell(cell="captured graph", kind="capture", worst_ratio=0.12, seconds=0.05),
                    MatrixCell(
                        cell="onnxruntime, no graph optimisation", kind="translation", worst_ratio=3690.0, seconds=0.02
                    ),
                ),
                culprit="translation",
            ),
            dims=(
                AxisCertificate(
                    input="input",
                    position=0,
                    axis="batch",
                    asked="dynamic",
                    delivered="static",
                    trials=(
                        AxisTrial(size=2, passed=True, worst_ratio=0.2),
                        AxisTrial(size=7, passed=False, reason="Got 7, expected 2"),
                    ),
                    passed=False,
                ),
            ),
            ledger=None,
            latency=None,
        ),
    )
