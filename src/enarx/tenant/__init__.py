"""The customer's side: decides what to trust, knows what a keep image holds, holds the secrets.

Nothing here trusts the machine, the network or evidence that has not been verified.
"""
