"""Blueprints: one module for each resource."""
