"""Pure passes: a graph in, a new graph out."""
