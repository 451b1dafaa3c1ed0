"""transformers' encoders and decoders, built from a configuration that the options give. Nothing is ever downloaded.

Options are the fields of the model type's configuration class, so that the content of a ``config.json`` can be sent as
it is, and ``task``, which chooses the head. Which model types there are and which tasks they have is read from
transformers' own auto classes; only the configuration class is imported to describe one.
"""

import logging
from functools import cached_property

from torch import nn

from app.architectures.entry import Entry, Options
from app.architectures.transformers_forward import narrow_forward
from app.architectures.transformers_inputs import MODALITIES, Modality, signature
from app.architectures.transformers_layouts import from_saved_layout
from app.architectures.transformers_options import configuration, options_schema

PREFIX = "transformers/"
BASE = "base"
EXPERTS = "batched_mm"
"""How mixtures of experts compute: the implementation of transformers.integrations.moe in operators that ONNX has."""
TASKS = {
    BASE: ("AutoModel", "MODEL_MAPPING_NAMES"),
    "causal-lm": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    "masked-lm": ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    "seq2seq-lm": ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    "sequence-classification": (
        "AutoModelForSequenceClassification",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    ),
    "token-classification": ("AutoModelForTokenClassification", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES"),
    "question-answering": ("AutoModelForQuestionAnswering", "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES"),
    "image-classification": ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    "audio-classification": ("AutoModelForAudioClassification", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES"),
    "ctc": ("AutoModelForCTC", "MODEL_FOR_CTC_MAPPING_NAMES"),
}
"""Auto class of each task, and the table in transformers.models.auto.modeling_auto of the model types it can build."""


class TransformersModels:
    """Model types whose inputs are text, images, raw audio, or text and images together."""

    prefix = PREFIX

    @cached_property
    def _modalities(self) -> dict[str, Modality]:
        from transformers.models.auto import modeling_auto

        logging.getLogger("transformers").setLevel(logging.ERROR)  # default configurations warn about themselves
        found: dict[str, Modality] = {}
        for model_type in sorted(modeling_auto.MODEL_MAPPING_NAMES):
            modality = next((m for m in MODALITIES if m.holds(model_type, modeling_auto)), None)
            if modality is not None:
                found[model_type] = modality
        return found

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(PREFIX + model_type for model_type in self._modalities)

    def names(self) -> tuple[str, ...]:
        return self._names

    def holds(self, name: str) -> bool:
        return name in self._names

    def entry(self, name: str) -> Entry:
        import transformers

        model_type = name.removeprefix(PREFIX)
        modality = self._modalities[model_type]
        tasks = _tasks(model_type, modality)

        def construct(options: Options) -> nn.Module:
            config = configuration(model_type, options)
            auto_class = getattr(transformers, TASKS[options["task"]][0])
            module: nn.Module = auto_class.from_config(config, dtype="float32", experts_implementation=EXPERTS)
            declared = signature(modality, config, options)
            inputs, outputs = (tuple(spec.name for spec in specs) for specs in (declared.inputs, declared.outputs))
            return narrow_forward(module, inputs, outputs)

        return Entry(
            name=name,
            family=model_type,
            library="transformers",
            library_version=transformers.__version__,
            summary=modality.summary,
            options_schema=options_schema(model_type, tasks, modality.options),
            signature=lambda options: signature(modality, configuration(model_type, options), options),
            construct=construct,
            convert=lambda module, _options, tensors: from_saved_layout(module, tensors),
        )


def _tasks(model_type: str, modality: Modality) -> tuple[str, ...]:
    from transformers.models.auto import modeling_auto

    # Such classifiers read the state at the only <eos> of each row, which no declared distribution can promise.
    seq2seq = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    without = {"sequence-classification"} if model_type in seq2seq else set()
    return tuple(
        task
        for task, (_, table) in TASKS.items()
        if task in modality.tasks and task not in without and model_type in getattr(modeling_auto, table)
    )
