"""Remote tensors: operations that a coordinator posts and a worker runs."""
