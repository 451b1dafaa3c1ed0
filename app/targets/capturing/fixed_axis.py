"""How torch.export says that the code fixed the size of an axis that was marked dynamic."""

# torch/_dynamo/variables/builder.py, torch/fx/experimental/symbolic_shapes.py
_SAID = ("Constraints violated", "inferred to be a constant", "inferred a static shape", "marked as dynamic")


def tells_of_fixed_axis(error: BaseException) -> bool:
    """Whether this error of torch.export, its causes not counted, says so."""
    return any(words in str(error) for words in _SAID)
