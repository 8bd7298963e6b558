"""Where examples come from: built-in families, folders, batches and augmentation."""
