"""What all runs of a place came to, and questions about that."""
