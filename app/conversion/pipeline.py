"""The natural path of a conversion, from a checkpoint file to verified files on disk.

inspect the checkpoint → build the architecture and load the state dict → produce an artifact that verification accepts
(template or exporter ladder) → package it. No HTTP, no SQL, no queue: `recast convert` calls it without any server.
"""

from dataclasses import replace

import torch

from app.architectures.registry import load_registry
from app.conversion.approximation import produce_within
from app.conversion.asked_axes import refuse_fixed_axes
from app.conversion.candidates import Workpiece
from app.conversion.checkpoint import open_checkpoint
from app.conversion.facts import facts_of
from app.conversion.forward_memory import refuse_beyond_limit
from app.conversion.graph_over_checkpoint import checkpoint_file
from app.conversion.job import ConversionJob, ConversionOutcome, ProgressCallback, TemplateSource
from app.conversion.loading import load_module
from app.conversion.packaging import package
from app.conversion.stages import StageClock
from app.conversion.verification.eager_side import refuse_unfit_probes
from app.domain.conversion import Stage
from app.targets.request import export_request, signature_of_file


def convert(job: ConversionJob, progress: ProgressCallback, templates: TemplateSource) -> ConversionOutcome:
    """Run one conversion to its end. Results lie in ``job.work_dir``.

    Raises RecastError, with the stage it came from, where no artifact could be made. An artifact that verification
    refused is no exception: it comes back with ``problem`` set, so that its report is kept.
    """
    torch.set_num_threads(1)  # until ``produce``, which may fork: threads are not taken along
    clock = StageClock(progress)
    with clock.stage(Stage.inspect):
        opened = open_checkpoint(job.checkpoint, job.options.checkpoint_key)
    with clock.stage(Stage.build):
        registry = load_registry(job.plugins_dir, job.plugin, job.recipe)
        description = registry.resolve(job.architecture, job.architecture_options)
    with clock.stage(Stage.load):
        loaded = load_module(
            registry,
            job.architecture,
            job.architecture_options,
            opened,
            strict=job.options.strict,
            prefix=job.options.prefix,
            allow_missing=job.options.allow_missing,
            signature=description.signature,
        )
        request = export_request(loaded.module, description, job.options)
        refuse_beyond_limit(request)
        refuse_fixed_axes(request, description.signature)
        checkpoint = checkpoint_file(job, opened, loaded)
        facts = facts_of(job, description, opened, signature_of_file(request.signature, job.options), checkpoint)
        request = replace(request, facts=facts, checkpoint=checkpoint)
        workpiece = Workpiece(job, description, opened.inspection, loaded, request)
        refuse_unfit_probes(workpiece.model())
    produced = produce_within(workpiece, templates, clock)
    with clock.stage(Stage.package):
        return package(workpiece, produced, clock.timings)
