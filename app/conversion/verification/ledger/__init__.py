"""The weight ledger: where every uploaded tensor went, and where every tensor of the artifact came from."""
