"""Using a trained model on recordings."""
