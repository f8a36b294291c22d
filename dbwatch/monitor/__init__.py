"""What is happening there? Samples, collectors, the poller, and pure views of them."""
