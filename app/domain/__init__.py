"""The field's terms as frozen types, and the table of errors. Imports nothing of ours."""
