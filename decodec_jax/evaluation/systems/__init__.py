"""The systems that are measured: our models, other people's codecs and denoisers, lower and upper bounds."""
