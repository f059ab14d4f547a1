"""The story that `make up` tells: a shop is filled, an order goes its way, payments dies and comes back."""
