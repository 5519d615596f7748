"""What each process of the service has: logs, watched threads, signals of its start and end."""
