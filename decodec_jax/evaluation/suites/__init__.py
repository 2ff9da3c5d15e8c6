"""The suites of `decodec evaluate`: what each measures, and on which items."""
