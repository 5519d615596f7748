"""Detection runs: asked for, leased, executed by detector processes, and ended."""
