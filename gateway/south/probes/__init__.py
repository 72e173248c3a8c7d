"""What nodes run that prove nothing themselves: the gateway asks, as it is configured to."""
