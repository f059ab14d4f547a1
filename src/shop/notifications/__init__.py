"""Notifications: one mail per event that concerns a customer, sent until a mail server took or refused it."""
