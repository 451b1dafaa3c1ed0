"""Which exporters are tried, in which order."""

from app.domain.conversion import OnnxOptions, TorchScriptOptions

ExporterName = str

SCRIPTED = "torchscript-scripted"
"""The exporter built on TorchScript, given the compiled module: it keeps branches that a trace freezes."""

_ONNX: dict[str, tuple[ExporterName, ...]] = {
    "auto": ("dynamo", "torchscript", SCRIPTED),
    "dynamo": ("dynamo",),
    "torchscript": ("torchscript", SCRIPTED),
}


def rungs(options: OnnxOptions | TorchScriptOptions) -> tuple[ExporterName, ...]:
    """Names of the exporters to try in order: all of the target's for ``auto``, else the one asked for."""
    if isinstance(options, OnnxOptions):
        return _ONNX[options.exporter]
    return ("trace", "script") if options.method == "auto" else (options.method,)
