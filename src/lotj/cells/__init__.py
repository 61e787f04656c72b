"""Other people's robots and environments behind lotj's own interface, and the safety layer that stands before them."""
