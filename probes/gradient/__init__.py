"""Linear heads trained by gradient descent on cached features, as published recipes do."""
