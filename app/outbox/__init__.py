"""A transactional outbox: messages committed with the change they tell of, delivered in order for each media."""
