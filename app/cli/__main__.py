"""`python -m app.cli`: how the supervisor of `recast serve` starts its parts."""

from app.cli import main

main()
