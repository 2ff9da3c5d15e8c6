"""Text to speech on tokens: an autoregressive and a non-autoregressive transformer, as in VALL-E (Wang et al. 2023)."""
