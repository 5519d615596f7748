"""The detector process: decoding media, running the model, and the protocol that its parent speaks with it."""
