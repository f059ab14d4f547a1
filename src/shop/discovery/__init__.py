"""The registry of the shop: who runs where. It keeps nothing; whoever is alive registers again."""
