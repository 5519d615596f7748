"""One HTTP request and its response, with a deadline for both, a limit for the response, and no redirects.

The service sends its requests to the annotations service and to the issuer of tokens with it.
`app.client`, which people run on their own machines, is not: it uses their proxies, and the only deadline of an upload
that takes hours is the silence of the service.
"""
