"""What acts on shards and records: formats, codecs, commit, tiling, ONNX restoration, metrics, reports. No torch here."""
