"""How fast: inference, training and data on this machine, beside PyTorch, and what other machines would take."""
