"""What training asks of the model: the loss terms, each under its paper name."""
