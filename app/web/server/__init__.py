"""gunicorn: its hooks, worker and log, and what answers need beside a thread."""
