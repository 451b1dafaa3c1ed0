"""Classes and functions that training scripts leave in checkpoints and that carry no weights.

A checkpoint with an argparse.Namespace beside its state dict is common and harmless. Objects of these names are left
unread; nothing is imported or called for them, so that the list is one of what is known, not of what is trusted.
"""

_INERT: dict[str, str] = {
    "argparse": "Namespace",
    "types": "SimpleNamespace MappingProxyType",
    "pathlib": "Path PurePath PosixPath PurePosixPath WindowsPath PureWindowsPath",
    "pathlib._local": "Path PurePath PosixPath PurePosixPath WindowsPath PureWindowsPath",
    "datetime": "datetime date time timedelta timezone",
    "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID SafeUUID",
    "enum": "Enum IntEnum Flag IntFlag StrEnum",
    "http": "HTTPStatus HTTPMethod",
    "collections": "deque",
    "copyreg": "_reconstructor",
    "typing": "Any",
    "builtins": "object dict list tuple set frozenset int float complex str bool bytes bytearray slice range",
    "numpy": "dtype ndarray float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool_ str_",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "numpy.dtypes": (
        "Float16DType Float32DType Float64DType Int8DType Int16DType Int32DType Int64DType UInt8DType UInt16DType "
        "UInt32DType UInt64DType BoolDType StrDType BytesDType ObjectDType"
    ),
    "numpy.random._pickle": "__randomstate_ctor __generator_ctor __bit_generator_ctor",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.nodes": (
        "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode InterpolationResultNode PathNode StringNode"
    ),
    "torch": "device Generator",
    "torch.torch_version": "TorchVersion",
    "torch.serialization": "_get_layout",
    "torchvision.transforms.functional": "InterpolationMode",
    "torchvision.transforms.autoaugment": "AutoAugmentPolicy",
    "lightning_fabric.utilities.data": "AttributeDict",
    "lightning.fabric.utilities.data": "AttributeDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping": "EarlyStopping",
    "easydict": "EasyDict",
    "addict.addict": "Dict",
    "munch": "Munch",
    "yacs.config": "CfgNode",
    "fvcore.common.config": "CfgNode",
    "detectron2.config.config": "CfgNode",
    "ml_collections.config_dict.config_dict": "ConfigDict FrozenConfigDict",
    "mmcv.utils.config": "Config ConfigDict",
    "mmengine.config.config": "Config ConfigDict",
    "mmengine.logging.history_buffer": "HistoryBuffer",
    "transformers.training_args": "TrainingArguments OptimizerNames ParallelMode",
    "transformers.trainer_utils": "HubStrategy IntervalStrategy SaveStrategy SchedulerType EvaluationStrategy",
}

INERT_NAMES = frozenset(f"{module}.{name}" for module, names in _INERT.items() for name in names.split())


def is_inert(dotted: str) -> bool:
    return dotted in INERT_NAMES
