"""A real shop's orders, placed again through the gateway, and every service's books compared with the files."""
