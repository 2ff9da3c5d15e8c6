"""Other people's weights: export and import."""
