"""gunicorn: hooks, worker, log, and responses that continue without a thread."""
