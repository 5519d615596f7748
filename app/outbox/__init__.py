"""A transactional outbox: messages are committed with the change they report and delivered in order per media item."""
