"""Other machines that the service talks to: receivers of webhooks, sources of weights, places to publish to."""
