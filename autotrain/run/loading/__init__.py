"""From datasets to micro-batches: their order, the workers, and what becomes of bad samples."""
