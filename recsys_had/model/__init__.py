"""Tables and the graph of interactions over them."""
