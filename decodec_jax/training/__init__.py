"""How the model learns: state, step, loop, checkpoints, monitoring."""
