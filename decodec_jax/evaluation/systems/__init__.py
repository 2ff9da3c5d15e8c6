"""What is measured: models of ours, other people's codecs and denoisers, floors and ceilings."""
