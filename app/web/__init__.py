"""HTTP: blueprints, tokens, bodies and answers. What they ask for is done elsewhere."""
