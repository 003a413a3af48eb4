"""The page at `/` and the JavaScript client at `/client.js`, served as they stand: no build step, no other server.

`static/` is what browsers get (and what npm packs). `files` serves it, `access` says who may use the page,
`routes` gives the page its tokens. Nothing here knows what a call is.
"""
