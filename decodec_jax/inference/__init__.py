"""How a trained model is used on recordings."""
