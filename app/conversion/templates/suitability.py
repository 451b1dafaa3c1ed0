"""Which architectures can be templated: those whose graph does not depend on their weights."""


class TemplateUnsuitable(Exception):
    """Why no template can be made of this architecture, in words. The direct path is used instead."""
