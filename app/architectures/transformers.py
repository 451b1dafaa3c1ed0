"""transformers' encoders and decoders, built from a configuration that the options give. Nothing is downloaded."""

from app.architectures.entry import Entry

PREFIX = "transformers/"


class TransformersModels:
    """Every model type that ``AutoModel`` can build from a configuration."""

    prefix = PREFIX

    def names(self) -> tuple[str, ...]:
        return ()

    def entry(self, name: str) -> Entry:
        raise KeyError(name)
