"""Bundles: all that a stack needs on a machine without a network, in one folder that is carried there.

::

    files/<sha256>/<wheel>             wheels, each with <wheel>.metadata; ours with <wheel>.provenance.json[.sig], too
    simple/…                           the same as a package index
    pylock.toml  requirements.txt      what is installed, exact: by relative paths (PEP 751), and by hashes
    sbom.cdx.json                      what that is (CycloneDX 1.6)
    install.sh  README.txt             installs with python3 alone: the target's uv comes along
    sources/…                          with --with-sources: what a build of our wheels reads
    manifest.json  manifest.json.sig   target, every file with its size and sha256; signed by the configured key

``target`` says what it is for, ``resolve`` what belongs in (``ours`` what of that we built, ``companions`` what no metadata
says, ``newer`` what can't be had, ``making`` what is built first, ``origins`` what ours were built from), ``download``
brings it here, ``layout`` writes the folder, ``manifest`` and ``verify`` judge it, ``parts`` cuts it for small media,
``bring`` and ``installer`` are for the other side.
"""

#: Downloads at once: enough that small files don't wait for each other, few enough for any index.
JOBS = 8
