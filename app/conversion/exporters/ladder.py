"""Which exporters are tried, in which order."""

from app.domain.conversion import OnnxOptions, TorchScriptOptions

ExporterName = str


def rungs(options: OnnxOptions | TorchScriptOptions) -> tuple[ExporterName, ...]:
    """Names of the exporters to try in order: all of the target's for ``auto``, else the one asked for."""
    if isinstance(options, OnnxOptions):
        return ("dynamo", "torchscript") if options.exporter == "auto" else (options.exporter,)
    return ("trace", "script") if options.method == "auto" else (options.method,)
