"""Model cards: what they say, where they are found, which are selected."""
