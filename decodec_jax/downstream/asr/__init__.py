"""A recogniser of speech on tokens."""
