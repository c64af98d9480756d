"""From a card, a context and an image to everything a backend needs."""
