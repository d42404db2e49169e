"""What is under us: the extension, devices, memory, files, processes, progress bars, energy.

It must never import nothing of this package but the extension.
"""
