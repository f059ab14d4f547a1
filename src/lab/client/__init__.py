"""A customer of the shop over HTTP, with retries."""
