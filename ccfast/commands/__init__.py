"""The commands of ``ccfast``: each module has ``HELP``, ``add_options(parser)`` and ``run(options)``."""
