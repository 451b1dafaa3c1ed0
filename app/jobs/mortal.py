"""Imported first by the forkserver: from then on it dies with the worker that started it."""

from app.processes import die_with_parent

die_with_parent()
