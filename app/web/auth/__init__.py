"""Who calls: tokens, keys and addresses."""
