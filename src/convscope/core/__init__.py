"""What every other room may use: units, errors, findings, results, addresses, safe files, preserved models.

Import from the concept's own file (``from convscope.core.errors import ConvscopeError``); this package
imports nothing itself, so that the parts without PyTorch stay cheap.
"""
