"""The wheelhouse over HTTP: pages for clients and for people, files, uploads, metrics. See docs/serving.md."""
