"""The pages that `maven serve` gives, and the API beneath them."""
