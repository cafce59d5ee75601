"""Probes: does the knowledge come back when the prompt, the weights or the training change?

Each is a function of a loaded checkpoint. A figure says nothing alone: read it beside the retrained model's under the
same probe. Suite `robustness`; the table of all of them is `dareu.evaluation.probes.registry.PROBES`.
"""
