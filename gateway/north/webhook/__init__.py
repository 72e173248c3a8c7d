"""Results told to a server of the company's own as signed JSON."""
