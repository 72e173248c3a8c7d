"""Building and signing images, bundles and repositories."""
