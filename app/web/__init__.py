"""The HTTP API and the page: blueprints, authentication, request bodies, responses and metrics."""
