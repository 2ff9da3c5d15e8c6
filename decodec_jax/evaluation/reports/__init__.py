"""Tables, charts and the listening page."""
