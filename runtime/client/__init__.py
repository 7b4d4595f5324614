"""The registry as a client: asking identity providers, webhooks and other registries over HTTP/1.1."""
