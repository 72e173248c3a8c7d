"""A device that runs a stock SWUpdate with its webserver: looked after from another machine, over the network."""
