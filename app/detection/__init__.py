"""Detection: frames in, boxes out, each run a leased row in the database."""
