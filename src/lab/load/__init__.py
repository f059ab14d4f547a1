"""Load: customers who browse, order and read, at a rate or as fast as they are answered, and what it was like."""
