"""Evaluation of encoders: retrieval by labels and captions, decisions about pairs, calibration and reports."""
