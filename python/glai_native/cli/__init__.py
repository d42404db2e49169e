"""The program glai: a file or a folder a command.

It must never import federated learning, but where its command runs it.
"""
