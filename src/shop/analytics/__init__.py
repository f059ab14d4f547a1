"""Analytics: what the shop has sold, counted from its events alone and countable again from their beginning."""
