"""Metrics as pure functions of predictions and ground truth; each states its protocol, sign, range and source."""
