"""A store in a bucket that speaks the S3 protocol.

Requests go through a client of our own on `angos.runtime.client` instead of aioboto3: that one works on asyncio only,
spends 2.5 to 5 ms of processor time on a call where signing takes 20 µs and h11 some 200, needs 40 MiB, and takes
bodies only whole. The eleven kinds of requests that a registry sends are small enough to be shown right: the signature
by Amazon's published examples, the rest by the contract of all stores against a server of S3. What botocore is good
at, finding credentials in all the places where they may be, is left to it: `angos.runtime.stores.s3.credentials`.
"""
