"""This room holds the program glai: each command is a file or a folder.

It must never import federated learning, but where its command runs it.
"""
