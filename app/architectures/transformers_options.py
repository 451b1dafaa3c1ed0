"""Options of a transformers architecture: the fields of its configuration class, with their types and bounds."""

import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, Literal, Union, get_args, get_origin

from app.architectures.entry import Options, object_schema
from app.architectures.images import MOST_CLASSES
from app.domain.errors import InvalidOptions

OWN_OPTIONS = ("task", "sequence_length", "decoder_sequence_length", "image_size_used", "samples")
"""Options that are Recast's and not the configuration's."""
IGNORED = (
    *("_name_or_path", "chunk_size_feed_forward", "dtype", "gradient_checkpointing", "output_attentions"),
    *("output_hidden_states", "problem_type", "return_dict", "torch_dtype", "torchscript", "transformers_version"),
    "use_cache",
)
"""Found in config.json files; they do not change what is built here: always float32, without a cache, in eval mode."""
CHOSEN_HERE = re.compile(r"attn_implementation|experts_implementation|auto_map")
"""Members of a config.json for what is chosen here: which kernels compute, and that the code is transformers' own."""
LABELS = ("num_labels", "id2label", "label2id")
FOREIGN = re.compile(rf"backbone|use_timm|quantization_config|{CHOSEN_HERE.pattern}")
"""Fields that would load other models or code."""
SIZE = re.compile(r"size|dim|layer|head|length|width|depth|channel|position|embed|expert|block|num_|n_|d_|rank|hidden")
LARGEST_INTEGER = 2**31 - 1
LARGEST_SIZE = 2**20
MOST_LAYERS = 1024
LARGEST_VOCABULARY = 2_000_000
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", tuple: "array"}
ALL_TYPES = ["array", "boolean", "integer", "null", "number", "object", "string"]


def options_schema(model_type: str, tasks: tuple[str, ...], own: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of all options of a model type: ``task``, ``own`` and the configuration's fields."""
    from transformers import CONFIG_MAPPING

    properties = {
        "task": {"enum": list(tasks), "default": tasks[0], "description": "The head on top of the model."},
        "num_labels": {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_CLASSES},
        "id2label": {"type": ["object", "null"], "maxProperties": MOST_CLASSES},
        "label2id": {"type": ["object", "null"], "maxProperties": MOST_CLASSES},
        "architectures": {
            "type": ["array", "null"],
            "items": {"type": "string", "maxLength": 200},
            "maxItems": 20,
            "description": "Class names; they choose where a task of this model type has more than one.",
        },
        "decoder_start_token_id": {"type": ["integer", "null"], **_bounds("vocab_size")},
        **{name: {"description": "Accepted from a config.json and not used."} for name in IGNORED},
        **_config_properties(CONFIG_MAPPING[model_type]),
        **own,
    }
    return _config_schema(properties, {"enum": sorted({model_type, CONFIG_MAPPING[model_type].model_type})})


def configuration(model_type: str, options: Options) -> Any:
    """The configuration that the options describe, in the form in which the model is exported: no cache, named outputs.

    Raises what the configuration class raises for values that do not fit together.
    """
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type]
    defaults = {field.name: field.default for field in fields(config_class)}
    chosen = {
        name: value
        for name, value in _used(options, config_class).items()
        if name not in (*OWN_OPTIONS, "model_type") and not (name in defaults and defaults[name] == value)
    }
    chosen = {name: value for name, value in chosen.items() if value is not None or name not in LABELS}
    if "id2label" in chosen:
        chosen["id2label"] = {int(index): label for index, label in chosen["id2label"].items()}
    chosen["architectures"] = chosen.get("architectures") or []
    config = config_class(**chosen)
    for part in (config, *(getattr(config, name) for name in config_class.sub_configs)):
        if getattr(part, "use_cache", False):
            part.use_cache = False
    return config


def _used(options: Options, config_class: Any) -> dict[str, Any]:
    """A config.json, nested ones included, without what is ignored here or says what holds without it.

    Raises InvalidOptions for members that would load other models or code.
    """
    used = {}
    for name, value in options.items():
        if name in IGNORED or CHOSEN_HERE.search(name):
            continue
        if FOREIGN.search(name):
            if value and value != json.loads(config_class().to_json_string(use_diff=False)).get(name):
                raise InvalidOptions(f"{name} is not supported: it would load another model, or code.", option=name)
            continue
        if isinstance(value, dict) and "model_type" in value:
            used[name] = _used(value, config_class)
        else:
            used[name] = _decoded(value)
            if name not in config_class.__dataclass_fields__:
                _check_size(name, used[name])
    return used


def _decoded(value: Any) -> Any:
    """The value with the floats that JSON lacks: transformers writes infinity as {"__float__": "Infinity"}."""
    if isinstance(value, dict):
        if value.keys() == {"__float__"}:
            return float(str(value["__float__"]))
        return {key: _decoded(part) for key, part in value.items()}
    return [_decoded(part) for part in value] if isinstance(value, list) else value


def _check_size(name: str, value: Any) -> None:
    """Raises InvalidOptions for a number that is larger than what its name bounds; for members that no schema knows."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for part in parts:
        _check_size(name, part)
    if isinstance(value, int) and value > max(_bounds(name)["maximum"], LARGEST_VOCABULARY):
        raise InvalidOptions(f"{name}: {value} is too large.", option=name)


def _config_schema(properties: dict[str, Any], model_type: dict[str, Any]) -> dict[str, Any]:
    """Admits the properties; in a config.json, which says its model_type, also whatever else such files hold.

    from_pretrained passes all of it to the configuration class, which still reads members of older versions.
    """
    properties = {**properties, "model_type": {**model_type, "description": "As in a config.json."}}
    return {
        "type": "object",
        "properties": properties,
        "if": {"required": ["model_type"]},
        "else": object_schema(dict.fromkeys(properties, True)),
    }


def _config_properties(config_class: Any) -> dict[str, Any]:
    from transformers import PreTrainedConfig

    common = {field.name for field in fields(PreTrainedConfig)} - {"is_encoder_decoder"}
    known = {field.name: field for field in fields(config_class)}
    return {
        field.name: _property(field, config_class.sub_configs)
        for field in fields(config_class)
        if field.name not in common and field.name not in IGNORED and not FOREIGN.search(field.name)
    } | {
        alias: {key: value for key, value in _property(known[name], {}).items() if key != "default"}
        for alias, name in config_class.attribute_map.items()
        if name in known
    }


def _property(field: "Field[Any]", sub_configs: Mapping[str, Any]) -> dict[str, Any]:
    sub_config = sub_configs.get(field.name)
    if sub_config is not None and hasattr(sub_config, "__dataclass_fields__") and sub_config.sub_configs == {}:
        common: dict[str, Any] = {name: {} for name in IGNORED}
        return {**_config_schema({**common, **_config_properties(sub_config)}, {}), "type": ["object", "null"]}
    default = field.default
    kinds = _json_types(field.type) | ({JSON_TYPES[type(default)]} if type(default) in JSON_TYPES else set())
    schema: dict[str, Any] = {"type": sorted(kinds), **_bounds(field.name)}
    if isinstance(default, int | float) and math.isfinite(default):  # the library's own value is admitted
        schema["minimum"], schema["maximum"] = min(schema["minimum"], default), max(schema["maximum"], default)
    if isinstance(default, bool | int | float | str):
        schema["default"] = default
    return schema


def _bounds(name: str) -> dict[str, Any]:
    """Keywords that bound numbers, lists, strings and objects; each acts only on values of its own type."""
    low, high = -LARGEST_INTEGER, LARGEST_INTEGER
    if "vocab" in name:
        low, high = 0, LARGEST_VOCABULARY
    elif re.search(r"layers?$", name):
        low, high = 0, MOST_LAYERS
    elif SIZE.search(name) and not name.endswith("_id"):
        low, high = 0, LARGEST_SIZE
    number = {"minimum": low, "maximum": high}
    return {
        **number,
        "items": {**number, "maxItems": MOST_LAYERS, "maxLength": 200},
        "maxItems": 4096,
        "maxLength": 200,
        "maxProperties": 200,
    }


def _json_types(annotation: Any) -> set[str]:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return set().union(*(_json_types(part) for part in get_args(annotation)))
    if origin is Literal:
        return {JSON_TYPES.get(type(value), "null") for value in get_args(annotation)}
    if annotation is type(None):
        return {"null"}
    plain = origin or annotation
    if plain in JSON_TYPES:
        return {JSON_TYPES[plain], "integer"} if plain is float else {JSON_TYPES[plain]}
    if isinstance(plain, type):
        return {"object", "null"}
    return set(ALL_TYPES)
