"""Speed of inference, training and data on this machine, compared with PyTorch, and predicted for other machines."""
