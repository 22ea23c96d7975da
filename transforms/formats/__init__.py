"""Shard formats: webdataset tars and folders of loose images."""
