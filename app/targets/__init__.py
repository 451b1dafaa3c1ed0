"""Targets: the formats that a checkpoint can be converted to, one folder each.

To add one: its name in ``TargetName`` (domain/conversion.py), and a folder of that name with

- ``spec.py``, ``SPEC``: what can be said of it without torch (a TargetSpec)
- ``writing/writer.py``, ``WRITER``: makes artifacts (a Writer)
- ``reading/reader.py``, ``READER``: reads, runs and inspects them (a Reader)
- ``selfcheck.py``, ``run_<name>``: how the script in the bundle runs them

The two halves share no parser and no table of dtypes, so that neither repeats the other's mistake: a contract of
import-linter keeps them from importing each other. Everything else asks spec, writer and reader.
"""
