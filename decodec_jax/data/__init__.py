"""Where audio comes from: sources of clips, their mixing, and the grain pipeline. Numpy only."""
