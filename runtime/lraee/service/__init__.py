"""Serves a bundle over HTTP, within limits, in batches that images of all requests share.

Its modules need the extra `serve`; everything else imports them inside functions, when a service starts.

May import: bundle, checks, commands, engine, errors, images, install, labels, model, ort, policies, prediction.
"""
