"""Reading an uploaded weights file: what it is, what is inside, and its tensors, memory-mapped where possible.

Nothing a file refers to is imported or called: see docs/checkpoints.md.
"""

from app.conversion.checkpoint.opening import OpenedCheckpoint, open_checkpoint

__all__ = ["OpenedCheckpoint", "open_checkpoint"]
