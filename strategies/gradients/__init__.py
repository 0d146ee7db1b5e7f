"""Gradients instead of models: encoded, exchanged and averaged in every step. What is public is one room up."""
