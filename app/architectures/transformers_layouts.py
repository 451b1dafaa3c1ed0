"""Files that transformers itself wrote, read as ``from_pretrained`` reads them.

``save_pretrained`` and the hub keep many model types in other names and arrangements than their modules have: experts
one by one, projections fused or apart, older names. transformers lists these conversions by model type; here they are
applied to a state dict, without its loader, which would copy and place the tensors as well.

Source: transformers/core_model_loading.py, convert_and_load_state_dict_in_model, steps 1, 2 and 5.
"""

import re
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from torch import Tensor, nn


def from_saved_layout(module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names and in the arrangement of the module's state dict; others keep their names.

    What the model's class declares as not needed (``_keys_to_ignore_on_load_unexpected``) is dropped. Raises what a
    conversion raises for tensors that it does not fit.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    model: Any = module
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    wanted, prefix = module.state_dict(), model.base_model_prefix

    plain: dict[str, Tensor] = {}
    pending: dict[str, Any] = {}
    for key in sorted(tensors, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, wanted)
        if name not in wanted and key in wanted:
            name, pattern = rename_source_key(key, [], [], prefix, wanted)
        if name not in wanted:
            plain[key] = tensors[key]
        elif pattern is None:
            plain[name] = tensors[key]
        else:
            converter = pending.setdefault(name, deepcopy(by_pattern[pattern]))
            converter.add_tensor(name, key, pattern, tensors[key])
    for name, converter in pending.items():
        made = converter.convert(name, model=model, config=model.config)
        plain |= {target: value[0] if isinstance(value, list) else value for target, value in made.items()}
    ignored = _patterns(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    return {name: tensor for name, tensor in plain.items() if name in wanted or not ignored(name)}


def _patterns(patterns: Iterable[str]) -> Any:
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda name: any(pattern.search(name) for pattern in compiled)
