"""TUF and policy: what may run."""
