"""The keys that name files and folders, by the last part of their path."""

# Files and folders that a run reads.
INPUTS = frozenset({"path", "test_path", "holdout_path", "original", "retrained", "file", "refusals"})
# Folders that it writes to.
OUTPUTS = frozenset({"run_dir", "cache_dir"})
