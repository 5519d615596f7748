"""Detection runs: queued, claimed under leases, executed by detector processes, and ended."""
