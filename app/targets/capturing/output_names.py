"""Names of a model's outputs, from one run of it on the sample."""

from app.architectures.calling import call
from app.architectures.module_state import state_kept
from app.domain.errors import ExportFailed, RecastError
from app.targets.capturing.attention import plain_attention
from app.targets.capturing.quiet import first_lines
from app.targets.request import ExportRequest


def output_names(request: ExportRequest) -> tuple[str, ...]:
    """In the order of flattening. Raises ExportFailed where the model does not run on its own sample."""
    try:
        with plain_attention(), state_kept(request.module):
            return tuple(call(request, request.sample))
    except RecastError:
        raise
    except Exception as error:
        said = first_lines(str(error)) or type(error).__name__
        raise ExportFailed(f"the model's forward: {type(error).__name__}: {said}", stage="export") from error
