"""The appliance."""
