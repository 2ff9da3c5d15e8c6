"""On what, and which figures: the suites of `decodec evaluate`."""
