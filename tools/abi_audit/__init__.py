"""What a compiled extension needs from torch and Python in order to load.

``inputs`` turns paths into libraries, ``elf`` reads one library, ``namespaces``, ``shims`` and
``python_api`` say what a symbol belongs to, ``policy`` holds what is allowed, ``checks`` compares
the two, ``report`` writes the result. ``tools/audit_abi.py`` is the command line.
"""
