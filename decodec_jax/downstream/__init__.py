"""What tokens are for: models that learn from the shards that `decodec tokenize` writes."""
