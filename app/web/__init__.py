"""The pages for people with a browser. They show what /v1 tells and ask /v1 for what they do."""
