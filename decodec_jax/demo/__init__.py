"""The page that runs the codec in a browser: static files in page/, put beside a model and served by site.py."""
