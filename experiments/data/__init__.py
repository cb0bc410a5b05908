"""Data sets: their files, images, captions and batches."""
