"""What transformers models take: the modalities, and the signature that a configuration gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.architectures.entry import Options
from app.architectures.images import LARGEST_SIDE, normalised_images
from app.domain.architecture import Axis, InputSpec, Integers, Mask, OutputSpec, Signature
from app.domain.errors import InvalidOptions

LONGEST_SAMPLE = 4096
"""Tokens in a sample input."""
SAMPLE_TOKENS = 16
SMALLEST_VOCABULARY = 32
"""For models that take characters (canine) or whose configuration leaves the size open (esm)."""
DEFAULT_SIDE = 224
VIDEO = frozenset({"timesformer", "videomae", "videoprism_vision_model", "vivit"})
"""transformers lists them with the image models."""
MOST_SAMPLES = 480_000
"""Audio samples of a sample input: 30 s at 16 kHz."""
WITHOUT_MASK = frozenset({"cpmant", "fnet", "xlstm"})
"""Text models whose forward takes no attention mask."""
POSITIONS_AFTER_PADDING = frozenset(
    {"camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"}
    | {"xlm-roberta", "xlm-roberta-xl", "xmod"}
)
"""Their first position is padding_idx + 1 (create_position_ids_from_input_ids), so fewer tokens fit than positions."""
OUTPUTS = {
    "causal-lm": ("logits",),
    "masked-lm": ("logits",),
    "seq2seq-lm": ("logits",),
    "sequence-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
    "image-classification": ("logits",),
    "audio-classification": ("logits",),
    "ctc": ("logits",),
}
"""The outputs of a task's head; without a head, whatever tensors the model returns."""

DECODING_TASKS = ("base", "seq2seq-lm")
"""Tasks of an encoder-decoder whose decoder is fed; the others shift input_ids themselves or have no encoder."""
TEXT_TASKS = (
    "base",
    "causal-lm",
    "masked-lm",
    "seq2seq-lm",
    "sequence-classification",
    "token-classification",
    "question-answering",
)


@dataclass(frozen=True)
class Modality:
    """A kind of input, with the auto-class tables that tell which model types take it."""

    summary: str
    tasks: tuple[str, ...]
    tables: tuple[str, ...]
    excluded_tables: tuple[str, ...]
    inputs: Callable[[Any, Options], tuple[InputSpec, ...]]
    excluded: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)

    def holds(self, model_type: str, modeling_auto: Any) -> bool:
        """Whether transformers lists the model type under this modality and not under one that needs more inputs."""

        def listed(tables: tuple[str, ...]) -> bool:
            return any(model_type in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES") for table in tables)

        return model_type not in self.excluded and listed(self.tables) and not listed(self.excluded_tables)


def signature(modality: Modality, config: Any, options: Options) -> Signature:
    """Inputs, axes and outputs of a model with this configuration.

    Raises InvalidOptions for a text classifier without a padding token: decoders look for the last token before the
    padding and refuse batches when they do not know what padding is.
    """
    if options["task"] == "sequence-classification" and config.get_text_config().pad_token_id is None:
        raise InvalidOptions(
            f"{config.model_type}: sequence-classification needs pad_token_id.",
            hint="Give pad_token_id, as the config.json of the trained model has it.",
        )
    inputs = modality.inputs(config, options)
    used = {size for spec in inputs for size in spec.shape if isinstance(size, str)}
    longest = _most_tokens(config)
    axes = [Axis(name="batch")]
    for name in ("sequence", "decoder_sequence"):
        if name in used:
            sample = min(options.get(f"{name}_length", SAMPLE_TOKENS), longest or LONGEST_SAMPLE)
            axes.append(Axis(name=name, maximum=longest, sample=sample))
    outputs = tuple(OutputSpec(name=name, dtype="float32") for name in OUTPUTS.get(options["task"], ()))
    return Signature(inputs=inputs, axes=tuple(axes), outputs=outputs)


def _most_tokens(config: Any) -> int | None:
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        positions -= (text.pad_token_id or 0) + 1
    return positions


def _tokens(name: str, axis: str, config: Any) -> InputSpec:
    ids = Integers(low=0, high=(getattr(config.get_text_config(), "vocab_size", None) or SMALLEST_VOCABULARY) - 1)
    return InputSpec(name=name, dtype="int64", shape=("batch", axis), distribution=ids)


def _mask(name: str, axis: str) -> InputSpec:
    return InputSpec(name=name, dtype="int64", shape=("batch", axis), distribution=Mask())


def _text(config: Any, options: Options) -> tuple[InputSpec, ...]:
    inputs = [_tokens("input_ids", "sequence", config)]
    if config.model_type not in WITHOUT_MASK:
        inputs.append(_mask("attention_mask", "sequence"))
    if config.is_encoder_decoder and options["task"] in DECODING_TASKS:
        inputs.append(_tokens("decoder_input_ids", "decoder_sequence", config))
    return tuple(inputs)


def _image(config: Any, options: Options) -> tuple[InputSpec, ...]:
    size = getattr(config, "image_size", None) or options.get("image_size_used", DEFAULT_SIDE)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    channels = getattr(config, "num_channels", 3)
    return (normalised_images("pixel_values", "batch", channels, height, width),)


def _text_and_image(config: Any, options: Options) -> tuple[InputSpec, ...]:
    (pixels,) = _image(config.vision_config, options)
    return (_tokens("input_ids", "sequence", config), pixels, _mask("attention_mask", "sequence"))


def _audio(_config: Any, options: Options) -> tuple[InputSpec, ...]:
    return (InputSpec(name="input_values", shape=("batch", options["samples"])),)


def _length(default: int, most: int, what: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": most, "default": default, "description": what}


SEQUENCE_OPTIONS = {
    "sequence_length": _length(SAMPLE_TOKENS, LONGEST_SAMPLE, "Tokens in the sample input; the axis is dynamic."),
    "decoder_sequence_length": _length(8, LONGEST_SAMPLE, "Tokens of the decoder in the sample input."),
}
MULTIMODAL_TABLES = ("IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "SPEECH_SEQ_2_SEQ")

MODALITIES = (
    Modality(
        summary="Text and images, encoded together",
        tasks=("base",),
        tables=("ZERO_SHOT_IMAGE_CLASSIFICATION",),
        excluded_tables=MULTIMODAL_TABLES,
        excluded=frozenset({"videoprism"}),
        inputs=_text_and_image,
        options=SEQUENCE_OPTIONS,
    ),
    Modality(
        summary="Text",
        tasks=TEXT_TASKS,
        tables=(
            "CAUSAL_LM",
            "MASKED_LM",
            "SEQUENCE_CLASSIFICATION",
            "TOKEN_CLASSIFICATION",
            "QUESTION_ANSWERING",
            "SEQ_TO_SEQ_CAUSAL_LM",
            "TEXT_ENCODING",
        ),
        excluded_tables=MULTIMODAL_TABLES,
        excluded=frozenset(
            {"audioflamingo3", "bros", "layoutlmv2", "lxmert", "musicgen", "musicgen_melody", "perceiver"}
        ),
        inputs=_text,
        options=SEQUENCE_OPTIONS,
    ),
    Modality(
        summary="Images",
        tasks=("base", "image-classification"),
        tables=("IMAGE", "IMAGE_CLASSIFICATION"),
        excluded_tables=MULTIMODAL_TABLES,
        excluded=frozenset({"dinat", "imagegpt", "perceiver", "timm_backbone"} | VIDEO),
        inputs=_image,
        options={
            "image_size_used": _length(DEFAULT_SIDE, LARGEST_SIDE, "Side of the image, where the model fixes none.")
        },
    ),
    Modality(
        summary="Raw audio",
        tasks=("base", "audio-classification", "ctc"),
        tables=("AUDIO_CLASSIFICATION", "CTC"),
        excluded_tables=MULTIMODAL_TABLES,
        excluded=frozenset(
            {"audio-spectrogram-transformer", "granite_speech5_ctc", "lasr_ctc", "parakeet_ctc", "wav2vec2-bert"}
        ),
        inputs=_audio,
        options={"samples": _length(16_000, MOST_SAMPLES, "Audio samples in the input, which is 16 kHz mono.")},
    ),
)
"""In the order in which they are tried: a model type has the first that holds."""
