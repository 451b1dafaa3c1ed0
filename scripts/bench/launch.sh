# Sourced by the launchers: runs the Python file beside the launcher in the project's environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[1]}")/../.."
scripts/setup
exec .venv/bin/python "scripts/bench/$(basename "${BASH_SOURCE[1]}").py" "$@"
