"""Scores as pure functions of predictions and truth; each states its protocol, sign, range and source."""
