"""Static graphs: the checkpoint as `torch.export` and Core ML need it.

Owns the two modules that are exported (`graphs`), what crosses their border (`interface`) and the
archive that holds an exported program (`archive`). Export writes archives, conversion reads them.
"""
