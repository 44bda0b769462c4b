"""Who vouches for a wheel: what is required where ``--signers`` names the keys that count."""

from __future__ import annotations

from builder.audit.rules import Rule, table

__all__ = ["RULES"]

RULES = table(
    Rule(
        id="signature-missing",
        severity="error",
        title="Nobody vouches for the wheel",
        why="signatures were asked for, and without one anybody may have made it",
        help="get <wheel>.provenance.json and <wheel>.provenance.json.sig from where the wheel came from, or build it here",
    ),
    Rule(
        id="signature-damaged",
        severity="error",
        title="The signature can't be read",
        why="it was changed, cut off, or is something else; it proves nothing so",
        help="get wheel, statement and signature again from where the wheel came from",
    ),
    Rule(
        id="signature-wrong",
        severity="error",
        title="The signature is of something else",
        why="the statement about the wheel, or the signature, was changed after it was signed",
        help="get wheel, statement and signature again from where the wheel came from",
    ),
    Rule(
        id="signer-unknown",
        severity="error",
        title="Somebody signed who isn't among the signers",
        why="the signature is good, and nobody whom you trust made it",
        help="add the key to the file of allowed signers where you trust it",
    ),
    Rule(
        id="signature-other-wheel",
        severity="error",
        title="The signed statement is about other bytes",
        why="it says nothing about this wheel: one of the two was replaced",
        help="get the wheel and its statement again from one place",
    ),
    Rule(
        id="signature-good",
        severity="info",
        title="The signature holds",
        why="the statement about this wheel was signed by one of the signers",
        help="nothing to do",
    ),
)
