"""Monte Carlo EM: the only floor that changes tensors in place."""
