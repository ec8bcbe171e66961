"""Power: where its failure is heard of, and what is decided from that; one file a source.

A source reports, and never raises for a failure that passes; `supply` listens to all of them.
"""
