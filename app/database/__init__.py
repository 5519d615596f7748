"""The database: the ways to a transaction on it, its tables, and what its failures mean."""
