"""Whole conversions of plug-ins written for one test, without a service."""

from pathlib import Path

import torch
from torch import nn

from app.conversion.job import ConversionJob, ConversionOutcome, TemplateSource
from app.conversion.pipeline import convert
from app.targets.onnx.spec import OnnxOptions
from app.targets.torchscript.spec import TorchScriptOptions

_PLUGIN = """
import torch
from torch import nn
from torch.nn import functional as F
from recast_plugins import Axis, InputSpec, OutputSpec, Signature, architecture


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {layers}

    def forward(self, x):
{body}

@architecture(
    "test/net",
    family="test",
    signature=Signature(
        inputs=(InputSpec(name="x", shape={shape}),), axes={axes}, outputs=({outputs})
    ),
)
def net() -> nn.Module:
    return Net()
"""


LAST = "self.last = nn.Linear(6, 4)"


class NoTemplates:
    """A source that knows no template."""

    def find(self, key: str) -> None:
        return None


def converted(
    body: str,
    options: OnnxOptions | TorchScriptOptions,
    directory: Path,
    *,
    shape: str = '("batch", 6)',
    axes: str = '(Axis(name="batch"),)',
    outputs: int = 1,
    layers: str = LAST,
    threads: int = 1,
    weights: nn.Module | None = None,
    templates: TemplateSource | None = None,
    probes: Path | None = None,
) -> ConversionOutcome:
    """The outcome for a net whose forward has this body; files lie in ``directory``/work.

    ``weights``: of its last layer, or of all ``layers`` where those are others.
    """
    (directory / "plugins").mkdir(parents=True)
    names = "".join(f'OutputSpec(name="{name}"), ' for name in ("y", "z", "v", "w")[:outputs])
    (directory / "plugins" / "net.py").write_text(
        _PLUGIN.format(layers=layers, body=body, shape=shape, axes=axes, outputs=names)
    )
    (directory / "work").mkdir()
    torch.manual_seed(0)
    weights = weights or nn.Linear(6, 4)
    prefix = "last." if layers == LAST else ""
    torch.save({f"{prefix}{name}": value for name, value in weights.state_dict().items()}, directory / "net.pt")
    job = ConversionJob(
        conversion_id="00000000-0000-0000-0000-000000000001",
        checkpoint=directory / "net.pt",
        checkpoint_sha256="0" * 64,
        architecture="test/net",
        options=options,
        work_dir=directory / "work",
        plugins_dir=directory / "plugins",
        threads=threads,
        client_probes=probes,
    )
    return convert(job, lambda stage, share: None, templates or NoTemplates())
