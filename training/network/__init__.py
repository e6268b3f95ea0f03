"""Towers that can be trained, and what makes their training steps fast on a CPU."""
