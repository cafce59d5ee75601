"""Metrics again from per-sample records, without a model: our own, open-unlearning's and TOFU's."""
