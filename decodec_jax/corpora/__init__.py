"""From archives to shards, and from shards to tokens: `decodec prepare` and `decodec tokenize`."""
