"""The version, part of every fingerprint: raise it whenever output bytes may change."""

VERSION = "0.3.3"
