"""What the model is: encoder, subspace projection, residual quantizers, decoder."""
