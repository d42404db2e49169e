"""This room holds what is under us: the extension, devices, memory, files, processes, progress bars and energy.

It must import nothing of this package but the extension.
"""
