"""What turns images into features: the registry, loaders, transforms and taps.

Start at `featcache.backbones.factory.load_backbone`; names are in `registry/`. Importing
this package loads neither torch nor timm.
"""
