"""What the tests' Kubernetes cluster has beside Kubernetes; needs nothing but Python, so that any can run it."""
