"""Where things are: geometry sources and what they are made of."""
