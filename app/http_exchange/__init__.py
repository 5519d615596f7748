"""One HTTP request and its answer with a deadline for the whole, a limit on what is read, and nothing followed: what
this service asks of others, the annotations service and an issuer of tokens, it asks so.

`app.client`, which people run on their own machines, does not: it goes through their proxies, and the only deadline of
an upload that takes hours is the silence of the other side.
"""
