"""Measurements, each against a peer in the same run. docs/performance.md holds their last results."""
