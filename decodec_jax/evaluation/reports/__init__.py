"""What is shown of it: tables, charts, and the demo page."""
